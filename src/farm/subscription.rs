//! Browsers' requests to join or leave a room.

use serde_json::json;

use super::ids::{InvalidUuid, hyphenated};
use super::json::{FieldError, Members};
use super::room::Room;

/// What a browser asks with `/subscription`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionRequest {
    pub op: Op,
    pub room: Room,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Subscribe,
    Unsubscribe,
}

/// Why a browser's request is not done. Its text is what the browser is answered, word for word as Flamenco has it where
/// Flamenco has one.
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
    /// Reads the argument of `/subscription`, the JSON text of `{op, type, uuid?}`.
    ///
    /// A missing `op` or `type` is refused like an empty one, as Flamenco does it.
    pub fn parse(argument: &str) -> Result<Self, Refusal> {
        let members = Members::of(argument).map_err(FieldError::from)?;
        let op: Option<String> = members.optional("op")?;
        let kind: Option<String> = members.optional("type")?;
        let uuid: Option<String> = members.optional("uuid")?;

        let uuid = uuid.map(|text| hyphenated(&text).map_err(|InvalidUuid| Refusal::InvalidUuid)).transpose()?;
        let room = match kind.as_deref() {
            Some("allJobs") => Room::Jobs,
            Some("allWorkers") => Room::Workers,
            Some("allLastRendered") => Room::LastRendered,
            Some("allWorkerTags") => Room::WorkerTags,
            Some("job") => Room::Job(uuid.ok_or(Refusal::JobWithoutUuid)?.into()),
            Some("tasklog") => Room::TaskLog(uuid.ok_or(Refusal::TaskWithoutUuid)?.into()),
            _ => return Err(Refusal::UnknownType),
        };
        let op = match op.as_deref() {
            Some("subscribe") => Op::Subscribe,
            Some("unsubscribe") => Op::Unsubscribe,
            _ => return Err(Refusal::UnknownOp),
        };
        Ok(Self { op, room })
    }

    /// The argument that asks for this; `None` for the chat, which everybody is in without asking.
    pub fn to_argument(self) -> Option<String> {
        let op = match self.op {
            Op::Subscribe => "subscribe",
            Op::Unsubscribe => "unsubscribe",
        };
        let argument = match self.room {
            Room::Jobs => json!({"op": op, "type": "allJobs"}),
            Room::Workers => json!({"op": op, "type": "allWorkers"}),
            Room::LastRendered => json!({"op": op, "type": "allLastRendered"}),
            Room::WorkerTags => json!({"op": op, "type": "allWorkerTags"}),
            Room::Chat => return None,
            Room::Job(id) => json!({"op": op, "type": "job", "uuid": id}),
            Room::TaskLog(id) => json!({"op": op, "type": "tasklog", "uuid": id}),
        };
        Some(argument.to_string())
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
                assert_eq!(SubscriptionRequest::parse(&argument), Ok(SubscriptionRequest { op, room }), "{argument}");
            }
        }
    }

    #[test]
    fn what_a_browser_would_ask_is_read_as_meant() {
        let id = ID.parse().unwrap();
        for room in [Room::Jobs, Room::Workers, Room::LastRendered, Room::WorkerTags, Room::Job(id)] {
            for op in [Op::Subscribe, Op::Unsubscribe] {
                let request = SubscriptionRequest { op, room };
                assert_eq!(SubscriptionRequest::parse(&request.to_argument().unwrap()), Ok(request));
            }
        }
        let log = SubscriptionRequest { op: Op::Subscribe, room: Room::TaskLog(ID.parse().unwrap()) };
        assert_eq!(log.to_argument().unwrap(), format!(r#"{{"op":"subscribe","type":"tasklog","uuid":"{ID}"}}"#));
        assert_eq!(SubscriptionRequest { op: Op::Subscribe, room: Room::Chat }.to_argument(), None);
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
    fn an_argument_of_the_wrong_shape_is_told_so() {
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
}
