//! One pass over one TenantContainer: what is done in which order.
//!
//! Owns: the order, and that a state is durable before it is shown. Must never: decide what a state is or what a child
//! looks like.

use std::{sync::Arc, time::Duration};

use futures::future::join;
use kube::Resource;
use kube_runtime::{
    events::{Event, EventType},
    reflector::ObjectRef,
};
use tracing::{info, warn};

use super::{
    apply::{self, Applied},
    context::{Context, Done, PassError},
    course::Course,
    disagree,
    health::Failure,
    mounts,
    observe::Observed,
    plan::{self, Hop, Standing, Verdict},
    record,
    show::{self},
    status::{self, Kept},
    validate::{self, Refusal, Surroundings, Tenant},
};
use crate::{
    api::{
        FINALIZER, TenantContainer,
        tenant_container::{OperationStatus, TenantContainerStatus},
    },
    ledger::{
        Backend, Entry, LedgerError, Micros, Outcome, Record, Seal,
        protocol::{ShowTests, show_tests},
        visible,
    },
    lifecycle::State,
};

/// The most hops that one pass takes. A life has no more in a row; a pass that would take more is wrong somewhere.
const MAX_HOPS: usize = 6;
/// How often an object is looked at when nothing happens: a safety net, which writes nothing.
const RESYNC: Duration = Duration::from_secs(600);
/// How soon a refused object is looked at again: what stands in its way is another object.
const REFUSED: Duration = Duration::from_secs(10);

/// Brings one object a pass further.
pub async fn pass(context: &Context, object: &TenantContainer) -> Result<Done, PassError> {
    // The cache may be behind our own last write; what we wrote is not.
    let object = context.tenants.get(&ObjectRef::from_obj(object)).unwrap_or_else(|| Arc::new(object.clone()));
    let Some(namespace) =
        context.caches.namespaces.get(&ObjectRef::new(object.metadata.namespace.as_deref().unwrap_or_default()))
    else {
        // The namespace's event is on its way; it brings this object here again.
        return Ok(Done { look_again: REFUSED, ..Done::default() });
    };
    let rival = context.rivals.reserve(&object).err();
    let around = Surroundings { cluster: context.cluster, namespace: &namespace, rival: rival.as_ref() };
    match validate::validate(&object, around) {
        Ok(tenant) => Pass { context, object, done: Done { look_again: RESYNC, ..Done::default() } }.run(tenant).await,
        Err(refusal) => refuse(context, &object, &refusal).await,
    }
}

struct Pass<'a> {
    context: &'a Context,
    object: Arc<TenantContainer>,
    done: Done,
}

impl Pass<'_> {
    async fn run(mut self, mut tenant: Tenant) -> Result<Done, PassError> {
        self.hold().await?;
        let mut observed = self.context.caches.observe(&tenant);
        mounts::ask(&self.context.client, &tenant, &mut observed, (self.context.clock)()).await;
        // Side by side: children never wait for the ledger, and what they were before decides what the request is called.
        let request = plan::new_request(&tenant, &observed);
        let (brought, noted) = join(self.bring(&tenant, &mut observed), self.note(&tenant, request.as_ref())).await;
        let mut brought = brought?;
        let mut kept = noted.map(|()| request.is_some().then(|| self.context.ledger.backend()));
        if let (Some(request), Ok(_)) = (request, &kept) {
            self.done.records += 1;
            tenant.shown.status.operation = Some(request);
        }
        for _ in 0..MAX_HOPS {
            let Brought { now, course, writes, trouble } = &brought;
            let now = *now;
            self.done.writes += writes;
            if *course == Course::Remove {
                return self.remove(&tenant, &observed).await;
            }
            let verdict = plan::conclude(&tenant, course, &observed, trouble.as_ref(), now);
            match (&verdict.hop, kept) {
                (Some(hop), Ok(_)) => match self.record(&mut tenant, &observed, hop, now).await {
                    Ok(record) => {
                        self.show_hop(&mut tenant, &observed, &verdict, &record).await?;
                        kept = Ok(Some(self.context.ledger.backend()));
                        brought = self.bring(&tenant, &mut observed).await?;
                    }
                    Err(PassError::Ledger(error)) => {
                        kept = Err(error);
                        brought.writes = 0;
                    }
                    Err(other) => return Err(other),
                },
                (_, kept) => return self.settle(tenant, &observed, verdict, kept, now).await,
            }
        }
        Err(PassError::Endless(subject(&tenant)))
    }

    /// Without the finalizer an object would be gone before its end is recorded. The API server adds it at creation where
    /// the chart's policy is; here it is added where the policy is not.
    async fn hold(&mut self) -> Result<(), PassError> {
        let metadata = &self.object.metadata;
        let held = metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
        if !held && metadata.deletion_timestamp.is_none() {
            self.leading()?;
            self.object = self.context.tenants.wrote(show::hold(&self.context.client, &self.object).await?);
            self.done.writes += 1;
        }
        Ok(())
    }

    /// Children as they should be.
    async fn bring(&self, tenant: &Tenant, observed: &mut Observed) -> Result<Brought, PassError> {
        // One moment for plan and conclusion: between two, a drain could end unseen by either.
        let now = (self.context.clock)();
        let course = plan::plan(tenant, now);
        let Applied { writes, trouble } = match &course {
            Course::Keep { children, .. } => {
                self.leading()?;
                apply::apply(&self.context.client, &self.context.caches, tenant, children, observed).await?
            }
            Course::Leave | Course::Remove => Applied::default(),
        };
        Ok(Brought { now, course, writes, trouble })
    }

    fn leading(&self) -> Result<u64, PassError> {
        (self.context.epoch)().ok_or(PassError::NotLeader)
    }

    fn seal(&self, at: Micros) -> Result<Seal, PassError> {
        Ok(Seal { cluster: self.context.cluster, epoch: self.leading()?, at })
    }

    /// A request that nobody has noted yet goes into the audit; the one before it, if unfinished, is superseded.
    async fn note(&self, tenant: &Tenant, request: Option<&OperationStatus>) -> Result<(), LedgerError> {
        let (Some(request), Ok(seal)) = (request, self.seal(tenant.request.at)) else { return Ok(()) };
        let before = tenant.shown.status.operation.as_ref();
        if let Some(unfinished) = before.filter(|operation| operation.result.is_none()) {
            self.audit(record::operation_finished(tenant, unfinished, "Superseded", seal)).await?;
        }
        self.audit(record::operation_started(tenant, &request.action, seal)).await
    }

    /// A request that was noted by a pass whose status write failed may be told in other words now. The first account
    /// stands, the other is kept in quarantine; neither may keep the object from going on.
    async fn audit(&self, entry: Entry) -> Result<(), LedgerError> {
        match self.context.ledger.submit(entry).await {
            Err(error @ LedgerError::Quarantined { .. }) => {
                warn!(reason = error.reason(), error = error.explain(), "a second account of a request");
                Ok(())
            }
            other => other.map(drop),
        }
    }

    async fn submit(&mut self, entry: Entry) -> Result<Outcome, LedgerError> {
        let outcome = self.context.ledger.submit(entry).await?;
        self.done.records += 1;
        Ok(outcome)
    }

    /// Makes the hop durable. What comes back is the record to show: ours, or the one that the ledger had already.
    async fn record(
        &mut self,
        tenant: &mut Tenant,
        observed: &Observed,
        hop: &Hop,
        now: Micros,
    ) -> Result<Record, PassError> {
        let seal = self.seal(now)?;
        let record = record::transition(tenant, hop).seal(seal, tenant.shown.head);
        let snapshot = record::snapshot(tenant, observed, Some(hop.transition.to()), record.head(), seal.epoch, now);
        let told = snapshot.clone();
        match self.submit(Entry::Chained { record: record.clone(), snapshot: Box::new(snapshot) }).await? {
            Outcome::Durable(_) => {
                self.context.told.note(&told);
                Ok(record)
            }
            other => {
                let ahead = disagree::resolve(&self.context.client, tenant, other).await?;
                info!(uid = %tenant.target.uid, "the ledger was one record ahead; it is shown now");
                Ok(ahead.unwrap_or(record))
            }
        }
    }

    /// Shows a durable record. From here on the next plan starts from it.
    async fn show_hop(
        &mut self,
        tenant: &mut Tenant,
        observed: &Observed,
        verdict: &Verdict,
        record: &Record,
    ) -> Result<(), PassError> {
        let envelope = record.envelope();
        let mut next = tenant.clone();
        next.shown.state = envelope.to.or(tenant.shown.state);
        next.shown.head = record.head();
        next.shown.since = Some(envelope.at);
        finish_request(&mut next.shown.status, next.shown.state, &verdict.standing);
        let finished = next.shown.status.operation != tenant.shown.status.operation;
        let mut shown =
            status::of(&next, observed, &verdict.standing, Kept::In(self.context.ledger.backend()), envelope.at);
        status::advance(&mut shown, record);
        if finished && let Err(error) = self.note_finish(&next, envelope.at).await {
            // The audit has the request unfinished until the next pass tells again; the state itself is durable.
            warn!(uid = %tenant.target.uid, error = error.explain(), "the end of a request was not noted");
            shown.operation = tenant.shown.status.operation.clone();
        }
        self.write_status(tenant, &shown, show_tests(envelope.to == Some(State::Deleted))).await?;
        info!(
            uid = %tenant.target.uid, namespace = %tenant.target.namespace, name = %tenant.target.name,
            from = envelope.from.map_or("", State::as_str), to = envelope.to.map_or("", State::as_str),
            reason = %envelope.reason, sequence = envelope.seq, "state"
        );
        self.publish(
            &envelope.reason,
            verdict.hop.as_ref().map_or("", |hop| &hop.message),
            envelope.to == Some(State::Failed),
        );
        next.shown.status = shown;
        *tenant = next;
        Ok(())
    }

    async fn note_finish(&mut self, tenant: &Tenant, at: Micros) -> Result<(), LedgerError> {
        let Some(operation) = &tenant.shown.status.operation else { return Ok(()) };
        let Ok(seal) = self.seal(at) else { return Ok(()) };
        let result = operation.result.clone().unwrap_or_default();
        self.done.records += 1;
        self.audit(record::operation_finished(tenant, operation, &result, seal)).await
    }

    /// No hop is left: shows what has changed besides, and tells the ledger of changed replicas.
    async fn settle(
        mut self,
        mut tenant: Tenant,
        observed: &Observed,
        verdict: Verdict,
        kept: Result<Option<Backend>, LedgerError>,
        now: Micros,
    ) -> Result<Done, PassError> {
        let before = self.object.status.clone().unwrap_or_default();
        let mut error = kept.as_ref().err().cloned();
        if error.is_none() {
            let request = tenant.shown.status.operation.clone();
            let (state, standing) = (tenant.shown.state, &verdict.standing);
            finish_request(&mut tenant.shown.status, state, standing);
            if tenant.shown.status.operation != request
                && let Err(failed) = self.note_finish(&tenant, now).await
            {
                tenant.shown.status.operation = request;
                error = Some(failed);
            }
        }
        // While it is starting, replicas change every moment; the record of how that ends carries them all.
        if error.is_none() && tenant.shown.state != Some(State::Pending) {
            let snapshot =
                record::snapshot(&tenant, observed, tenant.shown.state, tenant.shown.head, self.leading()?, now);
            if self.context.told.is_news(&snapshot) {
                match self.submit(Entry::Present(Box::new(snapshot.clone()))).await {
                    Ok(_) => self.context.told.note(&snapshot),
                    Err(failed) => error = Some(failed),
                }
            }
        }
        let kept = match (&error, kept) {
            (Some(error), _) => Kept::Not(error),
            (None, Ok(Some(backend))) => Kept::In(backend),
            (None, _) if condition(&before, "LedgerSynced") == Some("False") => Kept::In(self.context.ledger.backend()),
            (None, _) => Kept::AsBefore,
        };
        let standing = match (&error, &verdict.hop) {
            // What is not durable is not shown, in conditions no more than in the phase.
            (Some(error), Some(hop)) => Standing::OnTheWay {
                reason: error.reason(),
                message: format!("it is {} in fact, which is not shown until the ledger has it", hop.transition.to()),
            },
            _ => verdict.standing.clone(),
        };
        let mut shown = status::of(&tenant, observed, &standing, kept, now);
        if error.is_some() {
            // The next pass tells a release by the revision: it counts as seen only when its record is kept.
            shown.revision = before.revision.clone();
        }
        if shown != before {
            let news = reason_of(&shown) != reason_of(&before);
            self.write_status(&tenant, &shown, ShowTests::Head).await?;
            if let (true, Standing::Stuck(failure)) = (news && verdict.hop.is_none(), &verdict.standing) {
                self.publish(failure.reason, &failure.message, true);
            }
        }
        if let Some(at) = verdict.look_again {
            let wait = Duration::from_micros(u64::try_from(at.0 - now.0).unwrap_or(0)) + Duration::from_millis(5);
            self.done.look_again = self.done.look_again.min(wait);
        }
        error.map_or(Ok(self.done), |error| Err(error.into()))
    }

    async fn write_status(
        &mut self,
        tenant: &Tenant,
        shown: &TenantContainerStatus,
        tests: ShowTests,
    ) -> Result<(), PassError> {
        self.leading()?;
        let written = show::status(&self.context.client, &tenant.target, &self.object, tests, shown).await?;
        self.done.writes += 1;
        self.object = self.context.tenants.wrote(written);
        Ok(())
    }

    /// The last record is shown: first the children go, then the finalizer.
    async fn remove(mut self, tenant: &Tenant, observed: &Observed) -> Result<Done, PassError> {
        self.leading()?;
        if apply::remove(&self.context.client, &self.context.caches, tenant, observed).await? {
            show::release(&self.context.client, &tenant.target, &self.object).await?;
            self.done.writes += 1;
            self.context.told.forget(tenant.target.uid);
        }
        Ok(self.done)
    }

    fn publish(&self, reason: &str, message: &str, warning: bool) {
        publish(self.context, &self.object, reason, message, warning);
    }
}

/// Children as far as they could be brought.
struct Brought {
    now: Micros,
    course: Course,
    writes: u32,
    trouble: Option<Failure>,
}

/// Once the service is as desired, or has failed, the request is over.
fn finish_request(status: &mut TenantContainerStatus, state: Option<State>, standing: &Standing) {
    let Some(operation) = status.operation.as_mut().filter(|operation| operation.result.is_none()) else { return };
    operation.result = match (state, standing) {
        (Some(State::Deleted), _) | (_, Standing::AsDesired { .. }) => Some("Succeeded".to_owned()),
        (_, Standing::Stuck(_)) => Some("Failed".to_owned()),
        (_, Standing::OnTheWay { .. }) => return,
    };
}

async fn refuse(context: &Context, object: &Arc<TenantContainer>, refusal: &Refusal) -> Result<Done, PassError> {
    let mut done = Done { look_again: REFUSED, ..Done::default() };
    (context.epoch)().ok_or(PassError::NotLeader)?;
    let Ok(target) = validate::identify(object, context.cluster) else { return Ok(done) };
    let before = object.status.clone().unwrap_or_default();
    let finalized = object.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    if object.metadata.deletion_timestamp.is_some() && before.phase.is_none() && finalized {
        // It was never accepted: there is no chain to end and no child to delete.
        show::release(&context.client, &target, object).await?;
        done.writes += 1;
        return Ok(done);
    }
    let shown = status::refused(&before, refusal, object.metadata.generation.unwrap_or_default(), (context.clock)());
    if shown != before {
        let news = reason_of(&shown) != reason_of(&before);
        context.tenants.wrote(show::status(&context.client, &target, object, ShowTests::Head, &shown).await?);
        done.writes += 1;
        if news {
            warn!(uid = %target.uid, namespace = %target.namespace, name = %target.name, reason = refusal.reason(), "refused: {refusal}");
            publish(context, object, refusal.reason(), &refusal.to_string(), true);
        }
    }
    Ok(done)
}

/// Events are for people who look now; the ledger keeps what counts. So nobody waits for one, and one that is lost is
/// not worth a second try. There is at most one for each state that begins.
fn publish(context: &Context, object: &TenantContainer, reason: &str, message: &str, warning: bool) {
    let event = Event {
        type_: if warning { EventType::Warning } else { EventType::Normal },
        reason: reason.to_owned(),
        note: Some(visible(message, 1_000)),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    let (recorder, about) = (context.recorder.clone(), object.object_ref(&()));
    tokio::spawn(async move {
        if let Err(error) = recorder.publish(&event, &about).await {
            warn!(error = %error, reason = event.reason, "an Event was not written");
        }
    });
}

fn condition<'a>(status: &'a TenantContainerStatus, name: &str) -> Option<&'a str> {
    status.conditions.iter().find(|condition| condition.type_ == name).map(|condition| condition.status.as_str())
}

fn reason_of(status: &TenantContainerStatus) -> Option<&str> {
    status.conditions.iter().find(|condition| condition.type_ == "Ready").map(|condition| condition.reason.as_str())
}

fn subject(tenant: &Tenant) -> String {
    format!("{}/{}", tenant.target.namespace, tenant.target.name)
}
