//! An application puts its own merge function under faults: how many pieces of each article are in stock, kept as movements that every
//! shop records.

use anabranch_simulations::cluster::{Application, Cluster};
use anabranch_simulations::rng::Rng;

fn movement(rng: &mut Rng) -> String {
    let pieces = rng.within(1..9);
    if rng.chance(0.5) { format!("+{pieces}") } else { format!("-{pieces}") }
}

/// Adds movements up, and never shows less than nothing.
struct Stock;

impl Application for Stock {
    type State = i64;

    fn draw(&self, rng: &mut Rng) -> String {
        movement(rng)
    }

    fn merge(&self, stock: &mut i64, operation: &str) {
        *stock += operation.parse::<i64>().unwrap();
    }
}

/// Never lets the stock fall below nothing: it looks the same, and depends on the order in which movements arrive.
struct ClampedStock;

impl Application for ClampedStock {
    type State = i64;

    fn draw(&self, rng: &mut Rng) -> String {
        movement(rng)
    }

    fn merge(&self, stock: &mut i64, operation: &str) {
        *stock = (*stock + operation.parse::<i64>().unwrap()).max(0);
    }
}

#[test]
fn a_merge_that_is_commutative_passes() {
    Cluster::new(3).operations(30).check(&Stock, 1..=2).unwrap();
}

#[test]
fn one_that_is_subtly_not_is_found_and_shrunk_to_a_few_operations() {
    let found = Cluster::new(3).operations(30).check(&ClampedStock, 1..=20).unwrap_err();
    assert!(found.operations.len() <= 6, "{found}");
    assert!(found.operations.len() >= 2 && found.one_state != found.other_state, "{found}");
}
