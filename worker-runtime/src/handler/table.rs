//! The table of handlers: which one runs an activity type. Checked as a whole at start.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use operator_core::contract::{ActivityConfig, ExecMode, HandlerConfig, HandlerKind, RuntimeConfig, RuntimeLimits};

use super::http::Service;
use super::limits::{self, Limits};
use super::pool::Pool;
use super::program::Program;
use super::tree::Programs;
use super::{Call, End, HandlerError, exec, http, program};
use crate::devices;

/// A handler that can run.
#[derive(Clone, Debug)]
pub struct Handler {
    name: String,
    made_of: MadeOf,
    kind: Kind,
}

/// What the files say of a handler.
#[derive(Clone, Debug, PartialEq)]
struct MadeOf {
    config: HandlerConfig,
    timeout: Option<Duration>,
    processes: Option<u32>,
    limits: Limits,
}

impl MadeOf {
    fn new(config: &HandlerConfig, limits: &RuntimeLimits) -> Self {
        let timeout = limits.handler_timeout_ms.get(&config.name).map(|ms| Duration::from_millis(*ms));
        let processes = limits.handler_processes.get(&config.name).copied();
        Self { config: config.clone(), timeout, processes, limits: Limits::of(limits, &config.name) }
    }
}

#[derive(Clone, Debug)]
enum Kind {
    Once(Program),
    Pool(Arc<Pool>),
    Http(Service),
}

/// Activity types and their handlers.
#[derive(Clone, Debug)]
pub struct HandlerTable {
    /// By the type itself.
    exact: BTreeMap<String, Arc<Handler>>,
    /// By what a type begins with, longest first.
    prefixes: Vec<(String, Arc<Handler>)>,
    /// All of them, by name.
    handlers: BTreeMap<String, Arc<Handler>>,
    programs: Arc<Programs>,
    token: Option<Arc<str>>,
}

/// Everything that is wrong with a configuration, one line each.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration can't run:\n{}", .0.join("\n"))]
pub struct TableError(pub Vec<String>);

impl HandlerTable {
    /// The table that a configuration states. Runs of programs are noted in `programs`. Services get `token` with each
    /// request.
    ///
    /// # Errors
    /// All violations of the contract: fields, values and remedies.
    pub fn new(
        config: &RuntimeConfig,
        limits: &RuntimeLimits,
        programs: &Arc<Programs>,
        token: Option<Arc<str>>,
    ) -> Result<Self, TableError> {
        let (programs, handlers) = (programs.clone(), BTreeMap::new());
        Self { exact: BTreeMap::new(), prefixes: Vec::new(), handlers, programs, token }.renewed(config, limits)
    }

    /// The table that a changed configuration states. Handlers that did not change are the same: their processes stay.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn renewed(&self, config: &RuntimeConfig, limits: &RuntimeLimits) -> Result<Self, TableError> {
        let mut problems = problems(config);
        problems.extend(limits::problems(limits));
        problems.extend(devices::problems(limits));
        let mut handlers = BTreeMap::new();
        for handler in &config.handlers {
            if let HandlerKind::Exec(exec) = &handler.kind
                && let Some((field, problem)) = program::problem(exec)
            {
                problems.push(format!("handlers[{}].exec.{field}: {problem}", handler.name));
            }
            let made_of = MadeOf::new(handler, limits);
            let same = self.handlers.get(&handler.name).filter(|before| before.made_of == made_of);
            match same.map_or_else(|| self.make(made_of).map(Arc::new), |same| Ok(same.clone())) {
                Ok(made) => drop(handlers.insert(handler.name.clone(), made)),
                Err(problem) => problems.push(format!("handlers[{}].http.{problem}", handler.name)),
            }
        }
        if !problems.is_empty() {
            return Err(TableError(problems));
        }
        let (exact, prefixes) = routes(config, &handlers);
        Ok(Self { exact, prefixes, handlers, programs: self.programs.clone(), token: self.token.clone() })
    }

    fn make(&self, made_of: MadeOf) -> Result<Handler, String> {
        let name = made_of.config.name.clone();
        let kind = match &made_of.config.kind {
            HandlerKind::Exec(exec) => {
                let (programs, limits) = (self.programs.clone(), made_of.limits);
                let program = Program { programs, name: name.clone(), exec: exec.clone(), limits };
                match exec.mode {
                    ExecMode::Once => Kind::Once(program),
                    ExecMode::Pool => Kind::Pool(Arc::new(Pool::new(program, made_of.processes))),
                }
            }
            HandlerKind::Http(http) => Kind::Http(Service::new(http, self.token.clone())?),
        };
        Ok(Handler { name, made_of, kind })
    }

    /// The handler of an activity type: that of the type itself, else of the longest prefix.
    pub fn get(&self, activity_type: &str) -> Option<Arc<Handler>> {
        let by_prefix = || self.prefixes.iter().find(|(prefix, _)| activity_type.starts_with(prefix.as_str()));
        self.exact.get(activity_type).or_else(|| by_prefix().map(|(_, handler)| handler)).cloned()
    }

    /// The activity types that have a handler, as the configuration names them.
    pub fn activity_types(&self) -> Vec<String> {
        let prefixes = self.prefixes.iter().map(|(prefix, _)| format!("{prefix}*"));
        self.exact.keys().cloned().chain(prefixes).collect()
    }
}

type Routes = (BTreeMap<String, Arc<Handler>>, Vec<(String, Arc<Handler>)>);

fn routes(config: &RuntimeConfig, handlers: &BTreeMap<String, Arc<Handler>>) -> Routes {
    let (mut exact, mut prefixes) = (BTreeMap::new(), Vec::new());
    for ActivityConfig { activity_type, handler } in &config.activities {
        let Some(handler) = handlers.get(handler).cloned() else { continue };
        match activity_type.strip_suffix('*') {
            Some(prefix) => prefixes.push((prefix.to_owned(), handler)),
            None => drop(exact.insert(activity_type.clone(), handler)),
        }
    }
    prefixes.sort_by_key(|(prefix, _): &(String, _)| Reverse(prefix.len()));
    (exact, prefixes)
}

fn problems(config: &RuntimeConfig) -> Vec<String> {
    let mut problems: Vec<String> = config.violations().iter().map(ToString::to_string).collect();
    if config.activities.is_empty() {
        problems.push("activities: is empty; name at least one activity type and its handler".to_owned());
    }
    let names = config.handlers.iter().map(|handler| handler.name.as_str());
    let types = config.activities.iter().map(|activity| activity.activity_type.as_str());
    let queues = config.task_queues.iter().map(String::as_str);
    twice("handlers", names, &mut problems);
    twice("activities", types, &mut problems);
    twice("taskQueues", queues, &mut problems);
    problems
}

fn twice<'a>(field: &str, names: impl Iterator<Item = &'a str>, problems: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            problems.push(format!("{field}: {name:?} is there twice; keep one"));
        }
    }
}

impl Handler {
    /// Runs one task, within the handler's timeout, until it is asked to stop. Dropping the future stops the handler.
    pub async fn run(&self, call: &Call) -> End {
        let run = async {
            match &self.kind {
                Kind::Once(program) => exec::run(program, call).await.map_or_else(End::Failed, End::Result),
                Kind::Pool(pool) => pool.run(call).await,
                Kind::Http(service) => http::run(&self.name, service, call).await.map_or_else(End::Failed, End::Result),
            }
        };
        // A pool stops its task itself.
        let asked = async {
            match self.kind {
                Kind::Pool(_) => std::future::pending().await,
                Kind::Once(..) | Kind::Http(_) => call.stop.asked().await,
            }
        };
        let timeout = self.made_of.timeout.unwrap_or(Duration::MAX);
        tokio::select! {
            end = run => end,
            reason = asked => End::Stopped(reason),
            () = tokio::time::sleep(timeout) => {
                End::Failed(HandlerError::TimedOut { handler: self.name.clone(), timeout })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(config: &str) -> Result<HandlerTable, TableError> {
        let config = serde_json::from_str(config).unwrap();
        HandlerTable::new(&config, &RuntimeLimits::default(), &Arc::default(), None)
    }

    #[test]
    fn activity_types_find_their_handler() {
        let table = table(
            r#"{"version":1,"taskQueues":["q"],
                "handlers":[{"name":"cat","exec":{"command":["cat"]}},{"name":"web","http":{"url":"http://127.0.0.1:9000/"}}],
                "activities":[{"type":"B","handler":"cat"},{"type":"A","handler":"web"}]}"#,
        )
        .unwrap();
        assert_eq!(table.activity_types(), ["A", "B"]);
        assert!(table.get("A").is_some() && table.get("C").is_none());
    }

    #[test]
    fn a_handler_that_did_not_change_is_the_same() {
        let text = |timeout: &str, command: &str| {
            let config = format!(
                r#"{{"version":1,"taskQueues":["q"],
                    "handlers":[{{"name":"a","exec":{{"command":["true"],"mode":"Pool"}}}},
                                {{"name":"b","exec":{{"command":["{command}"]}}}}],
                    "activities":[{{"type":"A","handler":"a"}},{{"type":"B","handler":"b"}}]}}"#
            );
            let limits = format!(r#"{{"handlerTimeoutMs":{{"a":{timeout}}}}}"#);
            (serde_json::from_str(&config).unwrap(), serde_json::from_str(&limits).unwrap())
        };
        let (config, limits): (RuntimeConfig, RuntimeLimits) = text("1", "true");
        let first = HandlerTable::new(&config, &limits, &Arc::default(), None).unwrap();
        let same = |one: &HandlerTable, other: &HandlerTable| {
            ["A", "B"].map(|name| Arc::ptr_eq(&one.get(name).unwrap(), &other.get(name).unwrap()))
        };
        assert_eq!(same(&first, &first.renewed(&config, &limits).unwrap()), [true, true]);
        let (config, limits) = text("1", "false");
        let second = first.renewed(&config, &limits).unwrap();
        assert_eq!(same(&first, &second), [true, false]);
        let (config, limits) = text("2", "false");
        assert_eq!(same(&second, &second.renewed(&config, &limits).unwrap()), [false, true]);
        let (config, limits) = text("2", "no-such-program");
        assert!(second.renewed(&config, &limits).is_err());
    }

    #[test]
    fn the_exact_type_wins_then_the_longest_prefix_then_the_catch_all() {
        let table = table(
            r#"{"version":1,"taskQueues":["q"],
                "handlers":[{"name":"a","exec":{"command":["true"]}},{"name":"b","exec":{"command":["true"]}},
                            {"name":"c","exec":{"command":["true"]}},{"name":"d","exec":{"command":["true"]}}],
                "activities":[{"type":"*","handler":"d"},{"type":"Foo.*","handler":"c"},{"type":"Foo.Bar.*","handler":"b"},
                              {"type":"Foo.Bar.Baz","handler":"a"}]}"#,
        )
        .unwrap();
        let handler = |activity_type| table.get(activity_type).unwrap().name.clone();
        assert_eq!(["Foo.Bar.Baz", "Foo.Bar.Bazz", "Foo.Bar", "Fo", ""].map(handler), ["a", "b", "c", "d", "d"]);
        assert_eq!(table.activity_types(), ["Foo.Bar.Baz", "Foo.Bar.*", "Foo.*", "*"]);
    }

    #[test]
    fn every_violation_is_said_at_once() {
        let problems = table(
            r#"{"version":1,"taskQueues":["q","q"],
                "handlers":[{"name":"web","http":{"url":"http://10.0.0.1/"}},{"name":"x","exec":{"command":[]}},
                            {"name":"y","exec":{"command":["no-such-program"]}}],
                "activities":[{"type":"A","handler":"nobody"},{"type":"A","handler":"web"},
                              {"type":"Foo.*","handler":"x"},{"type":"Foo.*","handler":"web"}]}"#,
        )
        .unwrap_err()
        .to_string();
        for part in [
            "handlers[web].http.url",
            "10.0.0.1",
            "handlers[x].exec.command",
            "\"nobody\"",
            "handlers[y].exec.command[0]: is \"no-such-program\"",
            "\"q\" is there twice",
            "\"A\" is there twice",
            "\"Foo.*\" is there twice",
        ] {
            assert!(problems.contains(part), "{part} in {problems}");
        }
    }
}
