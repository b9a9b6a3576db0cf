//! The short form of `make sim`.

use replicator_sim::{Fault, Inject, Plan, SOMETIMES, run, run_guarded, run_many};

/// So many seeds reach every path, and take some seconds. `make sim` runs more.
const SEEDS: u64 = 1_500;

#[test]
fn whatever_fails_nothing_is_lost_and_every_hard_path_is_reached() {
    let report = run_many(0..SEEDS, 2, Plan::of);
    let violations: Vec<_> = report.violations.iter().map(ToString::to_string).collect();
    assert!(violations.is_empty(), "{violations:#?}");
    assert_eq!(report.missing(), [""; 0], "of {} paths", SOMETIMES.len());
}

#[test]
fn a_fault_at_any_step_of_a_small_schedule_loses_nothing() {
    for seed in 0..6 {
        let plan = Plan::small(seed);
        let steps = run(&plan).unwrap().steps;
        for fault in [Fault::Kill, Fault::Cut, Fault::SourceCrash, Fault::SinkCrash] {
            for step in 0..steps {
                let result = run_guarded(&plan.clone().with_fault(Inject { step, fault }));
                assert!(result.is_ok(), "{fault:?} at step {step}: {}", result.unwrap_err());
            }
        }
    }
}

#[test]
fn a_seed_is_the_same_schedule_each_time() {
    for seed in 0..40 {
        let digests = [0; 2].map(|_| run(&Plan::of(seed)).unwrap().digest);
        assert_eq!(digests[0], digests[1], "seed {seed}");
    }
    assert_ne!(run(&Plan::of(0)).unwrap().digest, run(&Plan::of(1)).unwrap().digest);
}
