use super::{Measured, POLICIES, judge, print};
use crate::policy::PolicyName;
use crate::table::{Means, Row, Style};
use crate::traces::TraceName;

/// Figures with which every mark is met, nearly all at their limits.
fn means(policy: PolicyName, trace: TraceName) -> Means {
    let (cost, p95) = match policy {
        PolicyName::Ours => (11.99, 3.49),
        PolicyName::Keda => (100.0, 60.0),
        PolicyName::Kpa => (20.0, 0.5),
        PolicyName::Clairvoyant => (10.0, 0.0),
        _ => (50.0, 30.0),
    };
    let late = if trace == TraceName::AzllmCode { 0.09 } else { 0.05 };
    let events = if policy == PolicyName::Ours { 4.0 } else { 10.0 };
    Means { cost, p95, late, events, ..Means::default() }
}

fn rows() -> Vec<Row> {
    let row = |trace| Row { trace, work_bound: 1.0, cells: POLICIES.map(|policy| means(policy, trace)).to_vec() };
    TraceName::ALL.map(row).to_vec()
}

fn measured() -> Measured {
    Measured { fixed: rows(), drawn: rows(), poison_replicas: 2.2, stale_decreases: 0 }
}

/// The marks that are missed once `change` was made.
fn missed(change: impl Fn(&mut Measured)) -> Vec<String> {
    let mut measured = measured();
    change(&mut measured);
    judge(&measured).into_iter().filter(|mark| !mark.met()).map(|mark| mark.name).collect()
}

fn ours(rows: &mut [Row], trace: TraceName) -> &mut Means {
    &mut rows.iter_mut().find(|row| row.trace == trace).unwrap().cells[0]
}

/// The same for all traces.
fn all(rows: &mut [Row], change: impl Fn(&mut Means)) {
    rows.iter_mut().for_each(|row| change(&mut row.cells[0]));
}

#[test]
fn every_mark_is_met_within_its_limit() {
    assert_eq!(missed(|_| {}), [] as [&str; 0]);
    assert_eq!(judge(&measured()).len(), 24);
}

#[test]
fn each_mark_is_missed_beyond_its_limit() {
    use TraceName::{AzllmCode, Long, Onoff, Ratelimited, Sparse, Spike, Tiny};
    let slow = |measured: &mut Measured, traces: &[TraceName]| {
        traces.iter().for_each(|trace| ours(&mut measured.fixed, *trace).p95 = 30.0);
    };
    // Two of fifteen may be worse; three may not. Nor does it help to be worse on the two that nobody can schedule.
    assert_eq!(missed(|it| all(&mut it.fixed, |cell| cell.p95 = 3.48)), [] as [&str; 0]);
    let three = missed(|it| slow(it, &[Onoff, Sparse, Spike]));
    assert!(three.contains(&"cheaper and faster (p95) than keda-expert, traces".to_string()), "{three:?}");
    assert!(!missed(|it| slow(it, &[Onoff, Sparse, Ratelimited])).iter().any(|name| name.contains("traces")));
    assert_eq!(
        missed(|it| all(&mut it.fixed, |cell| cell.cost = 12.1)),
        ["cost / keda, geo-mean", "cost on ratelimited / clairvoyant"]
    );
    assert_eq!(missed(|it| all(&mut it.drawn, |cell| cell.cost = 12.1)), ["cost / keda, geo-mean, drawn seeds"]);
    assert!(
        missed(|it| all(&mut it.drawn, |cell| cell.cost = 13.1)).contains(&"cost / kpa, geo-mean, drawn seeds".into())
    );
    assert_eq!(missed(|it| all(&mut it.fixed, |cell| cell.p95 = 3.6)), ["p95 + 1 s, geo-mean"]);
    assert_eq!(missed(|it| ours(&mut it.fixed, Tiny).late = 0.051), ["late on tiny, %"]);
    assert_eq!(missed(|it| ours(&mut it.fixed, AzllmCode).late = 0.091), ["late on azllm_code, %"]);
    assert_eq!(missed(|it| ours(&mut it.fixed, Tiny).killed = 10.2), ["killed"]);
    assert_eq!(missed(|it| ours(&mut it.fixed, Long).killed = 0.2), ["killed on long"]);
    assert_eq!(missed(|it| all(&mut it.fixed, |cell| cell.events = 4.1)), ["changes of the replicas / keda"]);
    assert_eq!(missed(|it| ours(&mut it.fixed, Ratelimited).cost = 12.1), ["cost on ratelimited / clairvoyant"]);
    assert_eq!(missed(|it| it.poison_replicas = 2.3), ["replicas on poison, mean"]);
    assert_eq!(missed(|it| it.stale_decreases = 1), ["decreases on stale data"]);
}

#[test]
fn a_trace_that_is_missing_is_a_mark_that_is_missed() {
    let gone = |trace| missed(move |it| it.fixed.retain(|row| row.trace != trace));
    assert_eq!(gone(TraceName::Poison), ["killed", "replicas on poison, mean"]);
    assert!(gone(TraceName::Spike).contains(&"p95 + 1 s, geo-mean".into()));
    assert_eq!(
        missed(|it| it.drawn.clear()),
        ["cost / keda, geo-mean, drawn seeds", "cost / kpa, geo-mean, drawn seeds"]
    );
}

#[test]
fn marks_are_printed_beside_their_figures() {
    let mut measured = measured();
    measured.poison_replicas = 9.0;
    measured.fixed.retain(|row| row.trace != TraceName::Long);
    let said = print(&judge(&measured), Style::Markdown);
    let line = |start: &str| {
        let line = said.lines().find(|line| line.starts_with(&format!("| {start} "))).unwrap_or_default();
        line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join(";")
    };
    assert_eq!(line("replicas on poison, mean"), "replicas on poison, mean;9.000;<= 2.2;NOT MET");
    assert_eq!(line("late on tiny, %"), "late on tiny, %;5.000;<= 5;met");
    assert_eq!(line("killed on long"), "killed on long;missing;<= 0;NOT MET");
}
