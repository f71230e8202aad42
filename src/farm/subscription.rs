//! Browsers' requests to join or leave a room.

use std::collections::HashSet;

use serde_json::json;

use super::ids::{InvalidUuid, hyphenated};
use super::json::{FieldError, FromJson, Members, Problem};
use super::room::Room;

/// The request in a `/subscription`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionRequest {
    pub op: Op,
    pub room: Room,
    /// Whether the client also wants the last known state of the room.
    pub state: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Subscribe,
    Unsubscribe,
}

/// Why a browser's request is refused. The text is the acknowledgement, word for word as Flamenco
/// has it where Flamenco has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("invalid UUID, ignoring request")]
    InvalidUuid,
    #[error("operation on job requires a UUID")]
    JobWithoutUuid,
    #[error("operation on task requires a UUID")]
    TaskWithoutUuid,
    #[error("unknown subscription type, ignoring request")]
    UnknownType,
    #[error("invalid subscription operation, ignoring request")]
    UnknownOp,
    #[error("invalid request: {0}")]
    WrongShape(#[from] FieldError),
}

impl SubscriptionRequest {
    /// Parses the argument of `/subscription`, the JSON text of `{op, type, uuid?, state?}`.
    ///
    /// A missing `op` or `type` is refused like an empty one, as in Flamenco.
    ///
    /// # Errors
    ///
    /// The argument is not such an object, or names an unknown operation, room or id. The text of
    /// the refusal is what Flamenco answers.
    pub fn parse(argument: &str) -> Result<Self, Refusal> {
        let members = Members::of(argument).map_err(FieldError::from)?;
        let op: Option<String> = members.optional("op")?;
        let kind: Option<String> = members.optional("type")?;
        let uuid: Option<String> = members.optional("uuid")?;

        let uuid = uuid.map(|text| hyphenated(&text).map_err(|InvalidUuid| Refusal::InvalidUuid)).transpose()?;
        let room = Room::of_subscription(kind.as_deref().unwrap_or_default(), uuid)?;
        let op = match op.as_deref() {
            Some("subscribe") => Op::Subscribe,
            Some("unsubscribe") => Op::Unsubscribe,
            _ => return Err(Refusal::UnknownOp),
        };
        Ok(Self { op, room, state: members.optional("state")?.unwrap_or_default() })
    }

    /// Returns the argument for this request, or `None` for the chat room, which every client is in
    /// without asking.
    pub fn to_argument(self) -> Option<String> {
        let op = match self.op {
            Op::Subscribe => "subscribe",
            Op::Unsubscribe => "unsubscribe",
        };
        let mut argument = match self.room.subscription()? {
            (kind, None) => json!({"op": op, "type": kind}),
            (kind, Some(uuid)) => json!({"op": op, "type": kind, "uuid": uuid}),
        };
        if self.state {
            argument["state"] = true.into();
        }
        Some(argument.to_string())
    }
}

/// The request in a `/resume`: to go on where an earlier connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeRequest {
    /// The token of the last event that the client has, as the client sent it.
    pub token: Option<String>,
    /// The rooms that the client wants to be in, each once.
    pub rooms: Vec<Room>,
    /// Whether the client wants the last known state of its rooms if it cannot get what it missed.
    pub state: bool,
}

impl ResumeRequest {
    /// Parses the argument of `/resume`, the JSON text of `{token, rooms, state?}`; rooms have the names
    /// of [`Room`].
    ///
    /// # Errors
    ///
    /// A member has the wrong type, or a name is not that of a room.
    pub fn parse(argument: &str) -> Result<Self, FieldError> {
        let members = Members::of(argument)?;
        let names: Vec<RoomName> = members.required("rooms")?;
        let mut rooms = Vec::with_capacity(names.len());
        let mut known = HashSet::new();
        rooms.extend(names.into_iter().map(|name| name.0).filter(|room| known.insert(*room)));
        Ok(Self { token: members.optional("token")?, rooms, state: members.optional("state")?.unwrap_or_default() })
    }
}

/// A room as clients name it.
struct RoomName(Room);

impl FromJson for RoomName {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        let name = String::from_json(json)?;
        name.parse().map(Self).map_err(|_| Problem::NotARoom.at(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";

    fn refusal(argument: &str) -> String {
        SubscriptionRequest::parse(argument).expect_err(argument).to_string()
    }

    #[test]
    fn every_type_has_its_room() {
        for (kind, uuid, room) in [
            ("allJobs", None, Room::Jobs),
            ("allWorkers", None, Room::Workers),
            ("allLastRendered", None, Room::LastRendered),
            ("allWorkerTags", None, Room::WorkerTags),
            ("allJobs", Some(ID), Room::Jobs),
            ("job", Some(ID), Room::Job(ID.parse().unwrap())),
            ("tasklog", Some(ID), Room::TaskLog(ID.parse().unwrap())),
            ("job", Some("4B2C1F0E-7C3F-4F0F-9A53-2F6D1B7F6C21"), Room::Job(ID.parse().unwrap())),
        ] {
            for (word, op) in [("subscribe", Op::Subscribe), ("unsubscribe", Op::Unsubscribe)] {
                let argument = json!({"op": word, "type": kind, "uuid": uuid, "extra": [1]}).to_string();
                assert_eq!(
                    SubscriptionRequest::parse(&argument),
                    Ok(SubscriptionRequest { op, room, state: false }),
                    "{argument}"
                );
            }
        }
    }

    #[test]
    fn requests_of_browsers_are_parsed() {
        let id = ID.parse().unwrap();
        for room in [Room::Jobs, Room::Workers, Room::LastRendered, Room::WorkerTags, Room::Job(id)] {
            for op in [Op::Subscribe, Op::Unsubscribe] {
                let request = SubscriptionRequest { op, room, state: false };
                assert_eq!(SubscriptionRequest::parse(&request.to_argument().unwrap()), Ok(request));
            }
        }
        let log = SubscriptionRequest { op: Op::Subscribe, room: Room::TaskLog(ID.parse().unwrap()), state: false };
        assert_eq!(log.to_argument().unwrap(), format!(r#"{{"op":"subscribe","type":"tasklog","uuid":"{ID}"}}"#));
        assert_eq!(SubscriptionRequest { op: Op::Subscribe, room: Room::Chat, state: false }.to_argument(), None);
    }

    #[test]
    fn checks_run_in_flamencos_order_with_its_texts() {
        for (argument, text) in [
            (r#"{"op":"x","type":"x","uuid":"x"}"#, "invalid UUID, ignoring request"),
            (r#"{"op":"subscribe","type":"allJobs","uuid":""}"#, "invalid UUID, ignoring request"),
            (
                r#"{"op":"subscribe","type":"job","uuid":"4b2c1f0e7c3f4f0f9a532f6d1b7f6c21"}"#,
                "invalid UUID, ignoring request",
            ),
            (r#"{"op":"x","type":"x"}"#, "unknown subscription type, ignoring request"),
            (r#"{"op":"subscribe","type":"chat"}"#, "unknown subscription type, ignoring request"),
            (r#"{"op":"subscribe"}"#, "unknown subscription type, ignoring request"),
            (r#"{"op":"x","type":"job"}"#, "operation on job requires a UUID"),
            (r#"{"op":"subscribe","type":"job","uuid":null}"#, "operation on job requires a UUID"),
            (r#"{"op":"x","type":"tasklog"}"#, "operation on task requires a UUID"),
            (r#"{"op":"x","type":"allJobs"}"#, "invalid subscription operation, ignoring request"),
            (r#"{"type":"allJobs"}"#, "invalid subscription operation, ignoring request"),
            (r#"{"op":"\ud800","type":"allJobs"}"#, "invalid subscription operation, ignoring request"),
        ] {
            assert_eq!(refusal(argument), text, "{argument}");
        }
    }

    #[test]
    fn an_argument_of_the_wrong_shape_is_refused_with_a_reason() {
        for (argument, text) in [
            ("[]", "invalid request: the value is an array where an object is due"),
            ("null", "invalid request: the value is null where an object is due"),
            ("\"allJobs\"", "invalid request: the value is a string where an object is due"),
            (r#"{"op":1}"#, "invalid request: op is a number where a string is due"),
            (r#"{"type":["allJobs"]}"#, "invalid request: type is an array where a string is due"),
            (r#"{"uuid":{}}"#, "invalid request: uuid is an object where a string is due"),
            (r#"{"op":"a","op":"b"}"#, "invalid request: op is given more than once"),
            ("{", "invalid request: the value is not JSON"),
        ] {
            assert_eq!(refusal(argument), text, "{argument}");
        }
    }

    #[test]
    fn a_request_to_resume_is_parsed() {
        let argument = json!({"token": "a-1-b", "rooms": ["Jobs", "Chat", "Jobs", format!("job-{ID}")], "state": true});
        let rooms = vec![Room::Jobs, Room::Chat, Room::Job(ID.parse().unwrap())];
        let expected = ResumeRequest { token: Some("a-1-b".to_owned()), rooms, state: true };
        assert_eq!(ResumeRequest::parse(&argument.to_string()), Ok(expected));
        let fresh = ResumeRequest { token: None, rooms: vec![], state: false };
        assert_eq!(ResumeRequest::parse(r#"{"token":null,"rooms":[]}"#), Ok(fresh));
        for (argument, error) in [
            ("null", "the value is null where an object is due"),
            ("{}", "rooms is missing"),
            (r#"{"rooms":["Kitchen"]}"#, "rooms[0] is not the name of a room"),
            (r#"{"rooms":[7]}"#, "rooms[0] is a number where a string is due"),
            (r#"{"rooms":[],"token":7}"#, "token is a number where a string is due"),
        ] {
            assert_eq!(ResumeRequest::parse(argument).unwrap_err().to_string(), error, "{argument}");
        }
    }
}
