//! `POST /api/debug/panic`, only with the feature `fault-injection`.

use actix_web::{HttpResponse, web};

use crate::faults::{self, Fault};

pub(super) async fn panic(fault: web::Json<Fault>) -> HttpResponse {
    faults::arm(fault.into_inner());
    HttpResponse::NoContent().finish()
}
