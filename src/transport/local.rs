//! What the requests of one worker thread share.

use std::{cell::OnceCell, rc::Rc, sync::Arc};

use actix_web::HttpRequest;

use super::{auth::Guard, door::Door, refusal::Refusal, worker::Worker};
use crate::{actors::Hub, proxy::Upstream};

/// The state of one worker thread.
pub(super) struct Local {
    hub: Arc<Hub>,
    pub(super) guard: Option<Guard>,
    pub(super) upstream: Option<Rc<Upstream>>,
    /// Set by the first session of this thread; `None` in it if the server has too many workers.
    worker: OnceCell<Option<Rc<Worker>>>,
}

impl Local {
    pub(super) fn new(door: &Door) -> Rc<Self> {
        Rc::new(Self {
            hub: door.hub.clone(),
            guard: door.settings.auth.clone().map(Guard::new),
            upstream: door.settings.proxy.as_ref().map(|proxy| Rc::new(proxy.upstream(&door.hub.stats.proxy))),
            worker: OnceCell::new(),
        })
    }

    /// Returns the state of the thread that serves this request.
    pub(super) fn of(request: &HttpRequest) -> Rc<Self> {
        request.app_data::<Rc<Self>>().expect("every app has it").clone()
    }

    /// Returns this thread's worker, which the first call starts.
    pub(super) fn worker(&self) -> Result<Rc<Worker>, Refusal> {
        self.worker.get_or_init(|| Worker::start(&self.hub)).clone().ok_or(Refusal::Full)
    }
}
