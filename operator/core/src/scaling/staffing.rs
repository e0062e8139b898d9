//! Slots for a load, so that few tasks wait too long: Erlang's C formula.
//!
//! `P(wait > T) = C(c, a) * exp(-(c - a) * T / W)` for `c` slots, `a` busy ones on average and the service time `W` (A. K.
//! Erlang, 1917; exact for Poisson arrivals and exponential service times).

/// Busy slots above which the limit of Halfin and Whitt (Operations Research 29:3, 1981) takes the place of the recursion:
/// it is exact to a slot there, and costs the same for any load.
const MANY: f64 = 400.0;
/// Halvings of the interval that holds the limit's only parameter.
const HALVINGS: u32 = 30;
/// Above this parameter no task waits.
const NO_WAIT: f64 = 6.0;

/// The least number of slots with which a share of at most `late` of the tasks waits longer than `patience` service times,
/// when `load` slots are busy on average. 0 for no load.
pub(super) fn slots_for(load: f64, patience: f64, late: f64) -> f64 {
    if load.is_nan() || load <= 0.0 {
        return 0.0;
    }
    let late = late.clamp(1e-6, 1.0);
    if load <= MANY {
        return few_slots(load, patience, late);
    }
    // The two differ by a slot where they meet: more load must not need fewer.
    many_slots(load, patience, late).max(few_slots(MANY, patience, late))
}

fn few_slots(load: f64, patience: f64, late: f64) -> f64 {
    let (mut slots, mut blocked) = (0.0, 1.0);
    let most = load + NO_WAIT * load.sqrt() + NO_WAIT;
    while slots < most {
        slots += 1.0;
        blocked = load * blocked / (slots + load * blocked);
        if slots > load {
            let waits = blocked / (1.0 - load / slots * (1.0 - blocked));
            if waits * libm::exp(-(slots - load) * patience) <= late {
                break;
            }
        }
    }
    slots
}

fn many_slots(load: f64, patience: f64, late: f64) -> f64 {
    let spread = load.sqrt();
    let share = |beta: f64| halfin_whitt(beta) * libm::exp(-beta * spread * patience);
    let (mut low, mut high) = (0.0, NO_WAIT);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if share(middle) > late { low = middle } else { high = middle }
    }
    (load + high * spread).ceil()
}

/// Share of the tasks that wait at all with `load + beta * sqrt(load)` slots.
fn halfin_whitt(beta: f64) -> f64 {
    let density = libm::exp(-beta * beta / 2.0) / std::f64::consts::TAU.sqrt();
    let below = 0.5 * libm::erfc(-beta / std::f64::consts::SQRT_2);
    density / (density + beta * below)
}

#[cfg(test)]
mod tests {
    use super::{few_slots, many_slots, slots_for};

    /// Erlang's C by its definition.
    fn waiting(slots: u32, load: f64) -> f64 {
        let (mut term, mut sum) = (1.0, 0.0);
        for k in 0..slots {
            sum += term;
            term *= load / f64::from(k + 1);
        }
        let last = term * f64::from(slots) / (f64::from(slots) - load);
        last / (sum + last)
    }

    #[test]
    fn it_is_the_least_number_that_keeps_the_target() {
        for load in [0.2, 1.0, 3.7, 8.0, 20.0, 39.8, 120.0] {
            for patience in [0.001, 0.1, 0.5, 5.0] {
                let slots = slots_for(load, patience, 0.05);
                let late = |slots: f64| waiting(slots as u32, load) * (-(slots - load) * patience).exp();
                assert!(slots > load && late(slots) <= 0.05, "{load} {patience}: {slots}");
                assert!(slots - 1.0 <= load || late(slots - 1.0) > 0.05, "{load} {patience}: {slots}");
            }
        }
    }

    #[test]
    fn textbook_values_are_met() {
        // 10 Erlang, 14 slots: 17.4 % wait; 15: 10.2 %; 16: 5.7 %; 17: 3.0 %.
        assert!((slots_for(10.0, 0.0, 0.05) - 17.0).abs() < 1e-9);
        assert!((slots_for(10.0, 0.0, 0.11) - 15.0).abs() < 1e-9);
    }

    #[test]
    fn the_limit_agrees_with_the_recursion_to_two_slots() {
        for load in [150.0, 250.0, 399.0] {
            for patience in [0.002, 0.05, 1.0] {
                let (few, many) = (few_slots(load, patience, 0.05), many_slots(load, patience, 0.05));
                assert!((few - many).abs() <= 2.0, "{load} {patience}: {few} {many}");
            }
        }
    }

    #[test]
    fn more_load_never_needs_fewer_slots() {
        let mut before = 0.0;
        for step in 0..3_000 {
            let slots = slots_for(f64::from(step) * 0.3, 0.4, 0.05);
            assert!(slots >= before, "{step}");
            before = slots;
        }
    }

    #[test]
    fn absurd_loads_end() {
        assert!(slots_for(f64::NAN, 1.0, 0.05).abs() < 1e-9);
        assert!(slots_for(-1.0, 1.0, 0.05).abs() < 1e-9);
        assert!(slots_for(1e15, 1.0, 0.0) >= 1e15);
        assert!(slots_for(5.0, 0.0, 0.0) < 30.0);
    }
}
