//! What Prometheus sees: the names that controller dashboards expect, and Berth's own.
//!
//! Owns: every metric, its labels and buckets. Must never: use a label whose values users choose.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text::encode},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::Registry,
};

use crate::ledger::{Health, Ledger, LedgerError, spool};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByController {
    controller: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    controller: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    controller: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Because {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByName {
    name: &'static str,
}

type Count = Counter<u64, AtomicU64>;
type Level = Gauge<i64, AtomicI64>;

/// The controllers, as the label `controller` names them.
pub mod controller {
    /// Passes over TenantContainers.
    pub const TENANT_CONTAINER: &str = "tenantcontainer";
    /// Passes over Deployments.
    pub const DEPLOYMENT: &str = "deployment";
    /// Passes over AccessGrants.
    pub const ACCESS_GRANT: &str = "accessgrant";
    /// Rounds over TenantQuotas.
    pub const TENANT_QUOTA: &str = "tenantquota";
}

/// All metrics.
pub struct Metrics {
    registry: Registry,
    passes: Family<ByResult, Count>,
    errors: Family<ByController, Count>,
    reasons: Family<ByReason, Count>,
    seconds: Family<ByController, Histogram, fn() -> Histogram>,
    active: Family<ByController, Level>,
    leading: Family<ByName, Level>,
    overdue: Level,
    tombstones: Level,
    writes: Count,
    records: Count,
    ledger: LedgerMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let passes = Family::default();
        let errors = Family::default();
        let reasons = Family::default();
        let active = Family::default();
        let leading = Family::default();
        let overdue = Level::default();
        let tombstones = Level::default();
        let writes = Counter::default();
        let records = Counter::default();
        // A pass that writes nothing takes 50 µs, one that creates all children 20 to 60 ms, on two cores.
        let seconds = Family::<ByController, Histogram, fn() -> Histogram>::new_with_constructor(|| {
            Histogram::new([0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0])
        });
        registry.register("controller_runtime_reconcile", "Passes, by result", passes.clone());
        registry.register("controller_runtime_reconcile_errors", "Passes that failed", errors.clone());
        registry.register("controller_runtime_reconcile_time_seconds", "Duration of passes", seconds.clone());
        registry.register("controller_runtime_active_workers", "Passes under way", active.clone());
        registry.register("leader_election_master_status", "1 where this replica leads", leading.clone());
        registry.register(
            "berth_access_grants_overdue",
            "Grants that ended more than 5 s ago and whose access is still there, as the leader sees it",
            overdue.clone(),
        );
        registry.register(
            "berth_ledger_tombstones",
            "Objects that are gone and whose last records wait for the database, as the leader saw them last",
            tombstones.clone(),
        );
        registry.register("berth_pass_failures", "Passes that failed, by reason", reasons.clone());
        registry.register(
            "berth_api_writes",
            "Requests to the API server that write, but for the Lease",
            writes.clone(),
        );
        registry.register("berth_ledger_entries", "Entries that the ledger took", records.clone());
        let ledger = LedgerMetrics::default();
        registry.register_collector(Box::new(ledger.clone()));
        let metrics = Self {
            registry,
            passes,
            errors,
            reasons,
            seconds,
            active,
            leading,
            overdue,
            tombstones,
            writes,
            records,
            ledger,
        };
        metrics.leads(false);
        metrics
    }
}

impl Metrics {
    /// A pass begins.
    pub fn began(&self, controller: &'static str) {
        self.active.get_or_create(&ByController { controller }).inc();
    }

    /// A pass ended: what it wrote, or why it failed.
    pub fn ended(&self, controller: &'static str, took: Duration, outcome: Result<(u32, u32), &'static str>) {
        self.active.get_or_create(&ByController { controller }).dec();
        self.seconds.get_or_create(&ByController { controller }).observe(took.as_secs_f64());
        let result = match outcome {
            Ok((writes, records)) => {
                self.writes.inc_by(u64::from(writes));
                self.records.inc_by(u64::from(records));
                "success"
            }
            Err(reason) => {
                self.errors.get_or_create(&ByController { controller }).inc();
                self.reasons.get_or_create(&ByReason { controller, reason }).inc();
                "error"
            }
        };
        self.passes.get_or_create(&ByResult { controller, result }).inc();
    }

    /// Whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.leading.get_or_create(&ByName { name: super::LEASE }).set(i64::from(leads));
    }

    /// How many grants are overdue.
    pub fn overdue(&self, grants: usize) {
        self.overdue.set(i64::try_from(grants).unwrap_or(i64::MAX));
    }

    /// How many tombstones are left.
    pub fn tombstones(&self, left: usize) {
        self.tombstones.set(i64::try_from(left).unwrap_or(i64::MAX));
    }

    /// From now on, shows how this ledger is.
    pub fn watch(&self, ledger: Ledger) {
        // It is opened once in a process's life.
        let _ = self.ledger.0.set(ledger);
    }

    /// Why the ledger's database takes nothing at the moment, if it is open and there is one.
    pub fn trouble(&self) -> Option<LedgerError> {
        self.ledger.0.get()?.trouble()
    }

    /// The exposition in the OpenMetrics text format.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// The ledger's own numbers, read when they are asked for: only those of the home in use, and none before it is open.
#[derive(Clone, Debug, Default)]
struct LedgerMetrics(Arc<OnceLock<Ledger>>);

impl Collector for LedgerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut show = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        let count = |counter: &AtomicU64| ConstCounter::new(counter.load(Ordering::Relaxed));
        match self.0.get().map(Ledger::health) {
            None => Ok(()),
            Some(Health::Database { writer, beside, trouble, spool }) => {
                if let Some((counters, waiting)) = writer {
                    let waiting = level(waiting as u64);
                    show("berth_ledger_transactions", "Transactions tried", &count(&counters.transactions))?;
                    show("berth_ledger_entries_committed", "Entries in committed ones", &count(&counters.committed))?;
                    show("berth_ledger_transactions_halved", "Those with a refused row", &count(&counters.halved))?;
                    show("berth_ledger_quarantined", "Entries put aside", &count(&counters.quarantined))?;
                    show(
                        "berth_ledger_breaker_opened",
                        "Times the database was given up on",
                        &count(&counters.opened),
                    )?;
                    show("berth_ledger_probes_failed", "Probes that found it away", &count(&counters.probes_failed))?;
                    show("berth_ledger_rewinds", "Times it had lost what it acknowledged", &count(&counters.rewinds))?;
                    show("berth_ledger_queue_entries", "Entries that wait for a transaction", &waiting)?;
                }
                let up = ConstGauge::new(i64::from(trouble.is_none()));
                show("berth_ledger_database_up", "1 where the database takes entries", &up)?;
                if let Some(trouble) = trouble {
                    let because = Family::<Because, Level>::default();
                    because.get_or_create(&Because { reason: trouble.reason() }).set(1);
                    show("berth_ledger_database_trouble", "1 for the reason why it takes none", &because)?;
                }
                show("berth_ledger_entries_spooled", "Entries that the spool took instead", &count(&beside.spooled))?;
                show(
                    "berth_ledger_records_unspooled",
                    "Records that only a status carries",
                    &count(&beside.carried_alone),
                )?;
                show(
                    "berth_ledger_entries_replayed",
                    "Entries brought into the database later",
                    &count(&beside.replayed),
                )?;
                if let Some(pace) = beside.pace() {
                    show("berth_ledger_replay_entries_per_second", "How fast", &level(pace.per_second))?;
                    show("berth_ledger_replay_seconds_to_go", "At this pace", &level(pace.seconds_to_go))?;
                }
                let Some(health) = spool else { return Ok(()) };
                let silent = level(beside.out_of_reach.load(Ordering::Relaxed));
                show(
                    "berth_ledger_entries_behind",
                    "Entries on the spool that it lacks",
                    &level(health.unacknowledged),
                )?;
                show("berth_spool_unreachable", "Spools of other replicas that nobody tells of any more", &silent)?;
                spool_numbers(&mut show, &health)
            }
            Some(Health::Spool(health)) => spool_numbers(&mut show, &health),
        }
    }
}

fn level(number: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(number).unwrap_or(i64::MAX))
}

fn spool_numbers(
    show: &mut dyn FnMut(&str, &str, &dyn EncodeMetric) -> fmt::Result,
    health: &spool::Health,
) -> fmt::Result {
    let poisoned = ConstGauge::new(i64::from(health.poisoned.is_some()));
    // Every crash leaves a torn end, and nobody has to look at it.
    let damages = health.damages.iter().filter(|damage| !damage.is_tail()).count();
    let damages = ConstGauge::new(i64::try_from(damages).unwrap_or(i64::MAX));
    show("berth_spool_poisoned", "1 where nothing is acknowledged any more", &poisoned)?;
    show("berth_spool_damages", "Damaged places in the journal, found as it was opened or read", &damages)?;
    show("berth_spool_syncs", "Syncs of the journal", &ConstCounter::new(health.journal_syncs))?;
    show("berth_spool_bytes", "Size of the journal", &level(health.bytes))?;
    show("berth_spool_poisonings", "Writes or syncs that failed", &ConstCounter::new(health.poisonings))?;
    show("berth_spool_tail_dropped", "Copies that the tail did not take", &ConstCounter::new(health.tail_dropped))?;
    show("berth_spool_usage_thinned", "Samples taken out for want of room", &ConstCounter::new(health.usage_thinned))?;
    show("berth_spool_usage_refused", "Samples not taken for want of room", &ConstCounter::new(health.usage_refused))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Config, postgres::Source, samples::Sample};

    #[tokio::test]
    async fn a_spool_shows_its_numbers_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(None, dir.path().to_owned(), "berth-0".to_owned());
        let metrics = Metrics::default();
        assert!(!metrics.text().unwrap().contains("berth_spool"), "it is not open yet");
        let ledger = Ledger::open(&config).await.unwrap();
        metrics.watch(ledger.clone());
        for _ in 0..2 {
            ledger.submit(Sample::new(1).operation(1)).await.unwrap();
        }
        let text = metrics.text().unwrap();
        let shown: Vec<_> =
            text.lines().filter(|line| line.contains("berth_spool") && !line.contains("HELP")).take(6).collect();
        assert_eq!(
            shown,
            [
                "# TYPE berth_spool_poisoned gauge",
                "berth_spool_poisoned 0",
                "# TYPE berth_spool_damages gauge",
                "berth_spool_damages 0",
                "# TYPE berth_spool_syncs counter",
                "berth_spool_syncs_total 1",
            ]
        );
        assert!(!text.contains("berth_ledger_transactions"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
        ledger.close().await;
    }

    #[tokio::test]
    async fn a_database_that_is_away_shows_why_and_what_it_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let away = Source::Url("postgres://berth@127.0.0.1:1/away?sslmode=disable".to_owned());
        let ledger = Ledger::open(&Config::new(Some(away), dir.path().to_owned(), "berth-0".to_owned())).await.unwrap();
        let metrics = Metrics::default();
        metrics.watch(ledger.clone());
        for operation in 1..=3 {
            ledger.submit(Sample::new(1).operation(operation)).await.unwrap();
        }
        let text = metrics.text().unwrap();
        for line in [
            "berth_ledger_database_up 0",
            "berth_ledger_database_trouble{reason=\"DatabaseUnavailable\"} 1",
            "berth_ledger_entries_behind 3",
            "berth_spool_unreachable 0",
        ] {
            assert!(text.lines().any(|shown| shown == line), "no {line:?} in {text}");
        }
        assert!(!text.contains("berth_ledger_replay_seconds_to_go"), "nothing is replayed: {text}");
        ledger.close().await;
    }
}
