//! What the Temporal server says of test Workflows.

/// State of a Workflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestStatus {
    /// It is open.
    Running,
    /// It succeeded.
    Completed,
    /// It failed.
    Failed,
    /// It was canceled.
    Canceled,
    /// Somebody ended it.
    Terminated,
    /// It took too long.
    TimedOut,
}

impl TestStatus {
    const ALL: [Self; 6] =
        [Self::Running, Self::Completed, Self::Failed, Self::Canceled, Self::Terminated, Self::TimedOut];

    /// The word of the status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Canceled => "Canceled",
            Self::Terminated => "Terminated",
            Self::TimedOut => "TimedOut",
        }
    }

    /// The state that a word stands for.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Whether it never changes any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        self != Self::Running
    }

    /// Whether it ended, and did not succeed.
    #[must_use]
    pub fn is_failure(self) -> bool {
        self.is_over() && self != Self::Completed
    }
}

/// The last run of a Workflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// Its run ID.
    pub run_id: String,
    /// Its state.
    pub status: TestStatus,
    /// What its failure says, if it failed and says anything.
    pub failure: Option<String>,
}
