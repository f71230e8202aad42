//! The Manager's token, which can be reloaded while the listener serves.

use std::{
    collections::{HashMap, VecDeque},
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use subtle::ConstantTimeEq;

use crate::http::counted;

/// Minimum number of characters of a token.
const MIN_LENGTH: usize = 16;

/// Wrong tokens of one address within [`WINDOW`] after which its requests are held.
const MAX_GUESSES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);

/// Delay before the token of such an address is compared, right or wrong: a client that does not wait for the answer learns nothing.
pub(super) const HOLD: Duration = Duration::from_secs(1);

/// Addresses whose guesses are counted separately. Further ones share one count.
const MAX_GUESSERS: usize = 1000;

/// Connections that are remembered for having sent the right token. They are never held.
const MAX_KNOWN: usize = 64;

/// A file's secret, as it was when last read.
pub struct Token {
    file: PathBuf,
    secret: RwLock<String>,
}

/// Why a file does not contain a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("cannot read the token file {}: {error}", file.display())]
    Unreadable { file: PathBuf, error: io::Error },
    #[error("the token file {} is empty", .0.display())]
    Empty(PathBuf),
    #[error("the token in {} has fewer than {MIN_LENGTH} characters: make one with `openssl rand -hex 32`", .0.display())]
    TooShort(PathBuf),
    #[error("the token file {} holds more than one word: a token is one line without spaces", .0.display())]
    SeveralWords(PathBuf),
    #[error("the token file {} holds characters that no header can carry: a token is letters, digits and signs of ASCII", .0.display())]
    NotAscii(PathBuf),
}

impl Token {
    /// Reads the token in `file`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or holds no valid token.
    pub fn read(file: PathBuf) -> Result<Self, TokenError> {
        let secret = RwLock::new(read(&file)?);
        Ok(Self { file, secret })
    }

    /// Reloads the file. If that fails, the token is unchanged.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_again(&self) -> Result<(), TokenError> {
        let secret = read(&self.file)?;
        *self.secret.write().unwrap_or_else(PoisonError::into_inner) = secret;
        Ok(())
    }

    /// Compares in constant time.
    pub(super) fn matches(&self, given: &str) -> bool {
        let secret = self.secret.read().unwrap_or_else(PoisonError::into_inner);
        secret.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

/// Reads a token without surrounding white space.
fn read(file: &Path) -> Result<String, TokenError> {
    let text = fs::read_to_string(file).map_err(|error| TokenError::Unreadable { file: file.to_owned(), error })?;
    let secret = text.trim();
    if secret.is_empty() {
        return Err(TokenError::Empty(file.to_owned()));
    }
    if secret.contains(char::is_whitespace) {
        return Err(TokenError::SeveralWords(file.to_owned()));
    }
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::NotAscii(file.to_owned()));
    }
    if secret.len() < MIN_LENGTH {
        return Err(TokenError::TooShort(file.to_owned()));
    }
    Ok(secret.to_owned())
}

/// The wrong tokens of each address, and the connections that sent the right one.
#[derive(Debug, Default)]
pub(super) struct Guesses(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Since when, and how many. The addresses beyond [`MAX_GUESSERS`] are counted under `None`.
    wrong: HashMap<Option<IpAddr>, (Instant, u32)>,
    /// The latest ones last.
    known: VecDeque<SocketAddr>,
}

impl Guesses {
    /// Returns whether a request is to be held before its token is compared.
    pub(super) fn hold(&self, peer: Option<SocketAddr>, now: Instant) -> bool {
        let counts = self.lock();
        let is_known = peer.is_some_and(|peer| counts.known.contains(&peer));
        let count = counts.wrong.get(&counts.guesser(peer));
        !is_known && count.is_some_and(|&(since, count)| count >= MAX_GUESSES && is_recent(since, now))
    }

    /// Counts a wrong token.
    pub(super) fn count(&self, peer: Option<SocketAddr>, now: Instant) {
        let mut counts = self.lock();
        if counts.wrong.len() >= MAX_GUESSERS {
            counts.wrong.retain(|_, (since, _)| is_recent(*since, now));
        }
        let guesser = counts.guesser(peer);
        let (since, count) = counts.wrong.entry(guesser).or_insert((now, 0));
        if !is_recent(*since, now) {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
    }

    /// Remembers a connection for having sent the right token. Those of a Unix socket, which have port 0,
    /// cannot be told apart.
    pub(super) fn know(&self, peer: Option<SocketAddr>) {
        let known = &mut self.lock().known;
        if let Some(peer) = peer.filter(|peer| peer.port() != 0 && !known.contains(peer)) {
            if known.len() == MAX_KNOWN {
                known.pop_front();
            }
            known.push_back(peer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// Returns under which address a peer is counted.
    fn guesser(&self, peer: Option<SocketAddr>) -> Option<IpAddr> {
        let address = peer.map(|peer| counted(peer.ip().to_canonical()));
        if self.wrong.contains_key(&address) || self.wrong.len() < MAX_GUESSERS { address } else { None }
    }
}

fn is_recent(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn peer(address: &str) -> Option<SocketAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_held_after_a_few_guesses() {
        let (guesses, now) = (Guesses::default(), clock::now());
        let [one, again, other] = ["192.0.2.1:1", "[::ffff:192.0.2.1]:2", "192.0.2.2:1"].map(peer);
        for _ in 0..MAX_GUESSES {
            assert!(!guesses.hold(one, now));
            guesses.count(one, now);
        }
        assert!(guesses.hold(one, now) && guesses.hold(again, now + WINDOW / 2));
        assert!(!guesses.hold(other, now));
        assert!(!guesses.hold(one, now + WINDOW));
        guesses.know(again);
        assert!(guesses.hold(one, now) && !guesses.hold(again, now), "another connection of the address");
    }

    #[test]
    fn a_network_is_one_guesser() {
        let (guesses, now) = (Guesses::default(), clock::now());
        (0..MAX_GUESSES).for_each(|number| guesses.count(peer(&format!("[2001:db8::{number}]:1")), now));
        assert!(guesses.hold(peer("[2001:db8::ffff]:1"), now));
        assert!(!guesses.hold(peer("[2001:db8:0:1::]:1"), now));
    }

    #[test]
    fn guesses_are_counted_in_bounded_memory() {
        let (guesses, now) = (Guesses::default(), clock::now());
        for number in 0..10 * MAX_GUESSERS as u32 {
            let peer = Some(SocketAddr::from((number.to_be_bytes(), 1)));
            guesses.count(peer, now);
            guesses.know(peer);
        }
        let counts = guesses.0.lock().unwrap();
        assert!(counts.wrong.len() <= MAX_GUESSERS + 1 && counts.known.len() == MAX_KNOWN);
    }
}
