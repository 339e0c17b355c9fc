use std::str::FromStr;

/// Seeds, `A..B` with both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seeds {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is not a seed: seeds are numbers from 0 on"));
        let (first, last) = text.split_once("..").ok_or("two seeds with `..` between them, as in 1..200; both are run")?;
        let seeds = Self { first: parse(first)?, last: parse(last)? };
        if seeds.first > seeds.last {
            return Err(format!("the first seed, {first}, is after the last one, {last}"));
        }
        Ok(seeds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_in_it() {
        assert_eq!("1..200".parse(), Ok(Seeds { first: 1, last: 200 }));
        assert_eq!("7..7".parse(), Ok(Seeds { first: 7, last: 7 }));
        for bad in ["", "7", "9..7", "a..7", "1..=3", "-1..3"] {
            assert!(bad.parse::<Seeds>().is_err(), "{bad}");
        }
    }
}
