//! The plan of a [`FaultEngine`](super::FaultEngine): its rules, their text form and which one strikes next.

use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anabranch_protocol::id::DatasetId;

use crate::probe::{Moment, Probe, Role};

/// The calls a rule can strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Open,
    Get,
    Scan,
    Put,
    Delete,
    Barrier,
    /// Not a call on a store: an actor at a moment of its life. See [`crate::probe`].
    At(Role, Moment),
}

/// What happens when a rule strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Error,
    NoSpace,
    Corrupt,
    Delay,
    Panic,
    Hang,
}

/// On which side of the wrapped call a rule strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

/// One line of a plan. See the module documentation for its text form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultRule {
    pub call: Call,
    pub fault: Fault,
    pub when: When,
    /// Calls that pass before the first strike.
    pub after: u64,
    /// Strikes left; `None` for ever.
    pub count: Option<u64>,
    /// How long [`Fault::Delay`] lasts.
    pub delay: Duration,
    /// Only calls on the store in a directory of this name.
    pub dataset: Option<String>,
}

/// Why a plan's text was refused; the plan is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fault rule {rule:?}: {reason}")]
pub struct FaultSpecError {
    pub rule: String,
    pub reason: String,
}

/// A shared list of faults to come. Clones are the same plan.
#[derive(Debug, Clone, Default)]
pub struct FaultPlan {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<FaultRule>,
    /// Counts reloads, so that a hanging call notices that its rule is gone.
    edition: u64,
    struck: u64,
}

impl FaultPlan {
    /// Replaces all rules by those of `text` and releases every hanging call. An empty text means no faults.
    pub fn reload(&self, text: &str) -> Result<(), FaultSpecError> {
        let rules = parse(text)?;
        let mut state = self.state();
        state.rules = rules;
        state.edition += 1;
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Removes all rules and releases every hanging call.
    pub fn clear(&self) {
        self.reload("").expect("an empty plan is valid");
    }

    /// How often a rule struck so far, reloads included: lets a test wait for its fault and prove that it happened.
    pub fn struck(&self) -> u64 {
        self.state().struck
    }

    /// How many rules the plan holds, those that are used up included.
    pub fn rules(&self) -> usize {
        self.state().rules.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault for this call, if one is due. Delays and hangs are served here, panics raised.
    pub(super) fn strike(&self, call: Call, when: When, dataset: &str) -> Option<Fault> {
        let mut state = self.state();
        let rule = state.take_due(call, when, dataset)?;
        match rule.fault {
            Fault::Hang => {
                let edition = state.edition;
                let released = self.shared.changed.wait_while(state, |state| state.edition == edition);
                drop(released.unwrap_or_else(PoisonError::into_inner));
                None
            }
            Fault::Delay => {
                drop(state);
                thread::sleep(rule.delay);
                None
            }
            Fault::Panic => {
                drop(state);
                panic!("injected panic {when:?} {call:?}");
            }
            Fault::Error | Fault::NoSpace | Fault::Corrupt => Some(rule.fault),
        }
    }
}

impl Probe for FaultPlan {
    fn at(&self, dataset: &DatasetId, role: Role, moment: Moment) {
        // An actor has no result to fail with: what is left are panics and waits.
        let _ = self.strike(Call::At(role, moment), When::Before, dataset.as_str());
    }
}

impl State {
    fn take_due(&mut self, call: Call, when: When, dataset: &str) -> Option<FaultRule> {
        let mut due = None;
        let meant = |rule: &FaultRule| {
            rule.call == call && rule.when == when && rule.dataset.as_ref().is_none_or(|named| named == dataset)
        };
        for rule in self.rules.iter_mut().filter(|rule| meant(rule)) {
            if rule.after > 0 {
                rule.after -= 1;
            } else if due.is_none() && rule.count != Some(0) {
                rule.count = rule.count.map(|left| left - 1);
                due = Some(rule.clone());
            }
        }
        self.struck += u64::from(due.is_some());
        due
    }
}

impl FromStr for FaultPlan {
    type Err = FaultSpecError;

    fn from_str(text: &str) -> Result<Self, FaultSpecError> {
        let plan = Self::default();
        plan.reload(text)?;
        Ok(plan)
    }
}

fn parse(text: &str) -> Result<Vec<FaultRule>, FaultSpecError> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let rules = lines.flat_map(|line| line.split(';')).map(str::trim).filter(|rule| !rule.is_empty());
    rules.map(|rule| parse_rule(rule).map_err(|reason| FaultSpecError { rule: rule.to_owned(), reason })).collect()
}

fn parse_rule(text: &str) -> Result<FaultRule, String> {
    let mut parts = text.split(':');
    let call = parse_call(parts.next().unwrap_or_default())?;
    let fault = parse_fault(parts.next().ok_or("the fault is missing")?)?;
    let mut rule = FaultRule { call, fault, when: When::Before, after: 0, count: Some(1), delay: Duration::ZERO, dataset: None };
    for part in parts {
        match part.split_once('=') {
            Some(("when", "before")) => rule.when = When::Before,
            Some(("when", "after")) => rule.when = When::After,
            Some(("after", number)) => rule.after = parse_number(number)?,
            Some(("count", "forever")) => rule.count = None,
            Some(("count", number)) => rule.count = Some(parse_number(number)?),
            Some(("ms", number)) => rule.delay = Duration::from_millis(parse_number(number)?),
            Some(("dataset", name)) => rule.dataset = Some(name.to_owned()),
            _ => return Err(format!("{part:?} is none of when=, after=, count=, ms=, dataset=")),
        }
    }
    if (rule.fault == Fault::Delay) == rule.delay.is_zero() {
        return Err("ms= belongs to delay, and delay needs it".to_owned());
    }
    Ok(rule)
}

fn parse_call(text: &str) -> Result<Call, String> {
    Ok(match text {
        "open" => Call::Open,
        "get" => Call::Get,
        "scan" => Call::Scan,
        "put" => Call::Put,
        "delete" => Call::Delete,
        "barrier" => Call::Barrier,
        _ => return parse_moment(text),
    })
}

fn parse_moment(text: &str) -> Result<Call, String> {
    let (role, moment) = text.split_once('.').unwrap_or_default();
    let role = Role::ALL.into_iter().find(|known| known.as_str() == role);
    let moment = Moment::ALL.into_iter().find(|known| known.as_str() == moment);
    let (role, moment) = role
        .zip(moment)
        .ok_or_else(|| format!("{text:?} is none of open, get, scan, put, delete, barrier, nor an actor's moment"))?;
    Ok(Call::At(role, moment))
}

fn parse_fault(text: &str) -> Result<Fault, String> {
    Ok(match text {
        "error" => Fault::Error,
        "enospc" => Fault::NoSpace,
        "corrupt" => Fault::Corrupt,
        "delay" => Fault::Delay,
        "panic" => Fault::Panic,
        "hang" => Fault::Hang,
        _ => {
            return Err(format!("{text:?} is none of error, enospc, corrupt, delay, panic, hang"));
        }
    })
}

fn parse_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}
