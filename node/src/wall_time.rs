//! Times as people read them. What a node says of its clock, or an invite of another's, may be any number.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anabranch_protocol::hlc::WallClock;

/// The last second that people write as a time, milliseconds.
const YEAR_9999: u64 = 253_402_300_799_000;

/// A time to the second.
#[must_use]
pub fn rfc3339(at: WallClock) -> String {
    humantime::format_rfc3339_seconds(written(at)).to_string()
}

/// A time to the millisecond.
#[cfg(feature = "http")]
#[must_use]
pub fn rfc3339_millis(at: WallClock) -> String {
    humantime::format_rfc3339_millis(written(at)).to_string()
}

fn written(at: WallClock) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(at.0.min(YEAR_9999))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_is_shown() {
        assert_eq!(rfc3339(WallClock(0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(WallClock(u64::MAX)), "9999-12-31T23:59:59Z");
        #[cfg(feature = "http")]
        assert_eq!(
            (rfc3339_millis(WallClock(1)).as_str(), rfc3339_millis(WallClock(u64::MAX)).len()),
            ("1970-01-01T00:00:00.001Z", 24)
        );
    }
}
