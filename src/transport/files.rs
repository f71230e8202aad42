//! The farm page and the client modules, which are embedded in the program.

use actix_http::Method;
use actix_web::{HttpRequest, HttpResponse, http::header};
use bytes::Bytes;

use super::directory;
use crate::http::{self, EmbeddedFile};

/// The folder of the files, beside the path of Socket.IO.
const FOLDER: &str = "webupdates";

/// The page itself.
const INDEX: &str = "index.html";

/// The places in the page for the last segment of the path of Socket.IO, the way from the page's folder to
/// the root, and whether the Manager's API is there.
const SOCKET_IO: &str = "name=\"socket-io\" content=\"socket.io\"";
const ROOT: &str = "name=\"root\" content=\"..\"";
const API: &str = "name=\"api\" content=\"none\"";

macro_rules! files {
    ($($name:literal)*) => { [$(($name, include_str!(concat!("../../web/", $name)))),*] };
}

/// The modules that other pages use too. `--page off` keeps them.
const MODULES: [(&str, &str); 3] = files!["client.js" "client.d.ts" "socket.io.js"];

const PAGE: [(&str, &str); 10] = files![
    "index.html" "page.css" "page.js" "dom.js" "inspector.js" "list.js" "log.js" "manager.js" "model.js" "shapes.js"
];

/// The files that this server offers.
#[derive(Debug)]
pub(super) struct Files {
    all: Vec<EmbeddedFile>,
}

/// Returns the name of the file at a resolved path. `socket_io` is where Socket.IO lives.
pub(super) fn named(path: &str, socket_io: &str) -> Option<&'static str> {
    let (beside, _) = socket_io.rsplit_once('/').unwrap_or_default();
    let in_folder = path.strip_prefix(beside).and_then(|rest| rest.strip_prefix('/')?.strip_prefix(FOLDER));
    let name = match in_folder {
        Some("") => INDEX,
        Some(rest) => rest.strip_prefix('/').filter(|name| *name != INDEX)?,
        // Pages load the client of Socket.IO 2 from there; it loads its module from its own folder.
        None => path
            .strip_prefix(socket_io)
            .and_then(|rest| rest.strip_prefix('/'))
            .filter(|name| ["socket.io.js", "client.js"].contains(name))?,
    };
    MODULES.iter().chain(&PAGE).map(|(known, _)| *known).find(|known| *known == name)
}

impl Files {
    /// `has_api` says whether this server answers for the Manager's API.
    pub(super) fn new(socket_io: &str, with_page: bool, has_api: bool) -> Self {
        let page = PAGE.iter().filter(|_| with_page);
        let page = page.map(|&(name, text)| {
            let text = match name {
                INDEX => Bytes::from(index(text, socket_io, has_api)),
                _ => Bytes::from_static(text.as_bytes()),
            };
            EmbeddedFile::new(name, text, false)
        });
        let modules =
            MODULES.iter().map(|(name, text)| EmbeddedFile::new(name, Bytes::from_static(text.as_bytes()), true));
        Self { all: modules.chain(page).collect() }
    }

    /// Answers a request for a file. Returns `None` if this server does not offer it.
    pub(super) fn answer(&self, name: &str, request: &HttpRequest) -> Option<HttpResponse> {
        let file = self.all.iter().find(|file| file.name == name)?;
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Some(http::method_not_allowed("GET, HEAD"));
        }
        // The page refers to its files relative to the folder.
        if name == INDEX && !request.path().ends_with('/') {
            return Some(redirect(&format!("{FOLDER}/")));
        }
        Some(file.answer(request))
    }

    /// Redirects the root to the page, or without it to the files of `--static`. Returns `None` for other
    /// paths.
    pub(super) fn redirect_root(
        &self,
        request: &HttpRequest,
        socket_io: &str,
        has_directory: bool,
    ) -> Option<HttpResponse> {
        let leads = request.path() == "/" && matches!(*request.method(), Method::GET | Method::HEAD);
        let has_page = self.all.iter().any(|file| file.name == INDEX);
        let folder = if has_page { FOLDER } else { directory::FOLDER };
        let (beside, _) = socket_io.rsplit_once('/').unwrap_or_default();
        let to = format!("{beside}/{folder}/");
        (leads && (has_page || has_directory)).then(|| redirect(to.trim_start_matches('/')))
    }
}

/// Writes into the page what it cannot know: a proxy may have removed a prefix from its address.
fn index(text: &str, socket_io: &str, has_api: bool) -> String {
    let (beside, last) = socket_io.rsplit_once('/').unwrap_or_default();
    let root = format!("..{}", "/..".repeat(beside.matches('/').count()));
    text.replace(SOCKET_IO, &format!("name=\"socket-io\" content=\"{last}\""))
        .replace(ROOT, &format!("name=\"root\" content=\"{root}\""))
        .replace(API, &format!("name=\"api\" content=\"{}\"", if has_api { "api/v3" } else { "none" }))
}

/// Redirects to a path relative to the request's, because a proxy may have removed a prefix.
pub(super) fn redirect(to: &str) -> HttpResponse {
    HttpResponse::TemporaryRedirect()
        .insert_header((header::LOCATION, to))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .finish()
}
