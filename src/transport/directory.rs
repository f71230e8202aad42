//! The files of `--static`: a page of one's own beside the server's.

use std::{
    io,
    path::{Path, PathBuf},
};

use actix_files::NamedFile;
use actix_http::Method;
use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderValue},
    web,
};

use super::files::redirect;
use crate::http;

/// The folder of `--static`, beside the path of Socket.IO.
pub(super) const FOLDER: &str = "static";

/// The file that stands for a folder.
const INDEX: &str = "index.html";

/// A folder whose files are served. Its path is absolute and has no symbolic links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory(PathBuf);

/// Parses a value of `--static`.
pub(super) fn parse_directory(text: &str) -> Result<Directory, String> {
    let path = Path::new(text).canonicalize().map_err(|error| error.to_string())?;
    if path.is_dir() { Ok(Directory(path)) } else { Err("not a folder".to_owned()) }
}

/// What a path below the folder names.
enum Found {
    File(Box<NamedFile>),
    /// A folder whose path lacks the slash, against which a page's own paths would be resolved.
    FolderWithoutSlash,
    Nothing,
}

impl Directory {
    /// Answers a request for the file at `path`, which has no dot segments. Returns `None` if there is
    /// no such file.
    pub(super) async fn answer(&self, path: &str, request: &HttpRequest) -> Option<HttpResponse> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Some(http::method_not_allowed("GET, HEAD"));
        }
        let (directory, path) = (self.clone(), path.to_owned());
        let has_slash = request.path().ends_with('/');
        // The file system may be slow, and other browsers wait for this thread.
        match web::block(move || directory.find(&path, has_slash)).await.ok()? {
            Ok(Found::File(file)) => Some(respond(*file, request)),
            Ok(Found::FolderWithoutSlash) => {
                let name = request.path().rsplit('/').next().unwrap_or_default();
                Some(redirect(&format!("{name}/")))
            }
            Ok(Found::Nothing) | Err(_) => None,
        }
    }

    fn find(&self, path: &str, has_slash: bool) -> io::Result<Found> {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        // Names such as .git and .env are not meant for visitors; a colon names a stream on Windows.
        if segments.any(|segment| segment.starts_with('.') || segment.contains([':', '\\'])) {
            return Ok(Found::Nothing);
        }
        let mut found = self.0.join(path.trim_start_matches('/')).canonicalize()?;
        if found.is_dir() {
            if !has_slash {
                return Ok(Found::FolderWithoutSlash);
            }
            found = found.join(INDEX).canonicalize()?;
        } else if has_slash {
            return Ok(Found::Nothing);
        }
        // Links within the folder are followed, links out of it are not. A pipe would block its reader.
        if !found.starts_with(&self.0) || !found.is_file() {
            return Ok(Found::Nothing);
        }
        Ok(Found::File(NamedFile::open(found)?.prefer_utf8(true).disable_content_disposition().into()))
    }
}

fn respond(file: NamedFile, request: &HttpRequest) -> HttpResponse {
    let mut response = file.into_response(request);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/javascript") {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/javascript; charset=utf-8"));
    }
    response
}
