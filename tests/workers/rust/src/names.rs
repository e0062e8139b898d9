//! What Workers of other languages have, by the names that they gave it. A type says what goes in and what comes out.

use temporalio_workflow::common::{SignalDefinition, WorkflowDefinition};

/// The Workflow `Listen`: waits for [`Say`], and tells what it heard.
pub struct Listen;

impl WorkflowDefinition for Listen {
    type Input = ();
    type Output = String;

    fn name(&self) -> &str {
        "Listen"
    }
}

/// Its signal `say`.
pub struct Say;

impl SignalDefinition for Say {
    type Workflow = Listen;
    type Input = String;

    fn name(&self) -> &str {
        "say"
    }
}
