//! Heads that are refused below the HTTP codec.

use actix_http::StatusCode;

use crate::{http::refusal::raw, stats::Refused};

/// The beginnings of the empty responses that actix-http itself sends to requests that it cannot
/// parse.
const UNREADABLE: &[u8] = b"HTTP/1.1 400 ";
const TOO_MANY_HEADERS: &[u8] = b"HTTP/1.1 431 ";

/// What is wrong with a head.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    TooSlow,
    TooLong,
    Unreadable,
}

impl Fault {
    pub(super) fn of_codec(answer: &[u8]) -> Option<Self> {
        match answer {
            _ if answer.starts_with(UNREADABLE) => Some(Self::Unreadable),
            _ if answer.starts_with(TOO_MANY_HEADERS) => Some(Self::TooLong),
            _ => None,
        }
    }

    pub(super) fn answer(self) -> Vec<u8> {
        match self {
            Self::TooSlow => raw(StatusCode::REQUEST_TIMEOUT, "the request arrives too slowly\n"),
            Self::TooLong => raw(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's headers are too long\n"),
            Self::Unreadable => raw(
                StatusCode::BAD_REQUEST,
                "this is not an HTTP/1.1 request, which has exactly one Host and at most one body length\n",
            ),
        }
    }

    pub(super) fn counted(self) -> Refused {
        match self {
            Self::TooSlow => Refused::HeadTooSlow,
            Self::TooLong => Refused::HeadTooLarge,
            Self::Unreadable => Refused::BadHttp,
        }
    }
}
