//! One pass over one TenantContainer: what is done in which order.
//!
//! Owns: the order, and that a state is durable before it is shown. Must never: decide what a state is or what a child
//! looks like.

use std::{sync::Arc, time::Duration};

use futures::future::join;
use kube::Resource;
use kube_runtime::reflector::ObjectRef;
use tracing::{info, warn};

use super::{
    admission,
    apply::{self, Applied},
    audit,
    context::{Context, Done, PassError},
    course::Course,
    cpu,
    health::{Failure, Trouble},
    mounts,
    observe::Observed,
    plan::{self, Hop, Standing, Verdict},
    record, remake, requests, resize, status,
    validate::{self, Refusal, Surroundings, Tenant},
};
use crate::{
    api::{
        FINALIZER, TenantContainer,
        tenant_container::{OperationStatus, TenantContainerStatus},
    },
    chain::{self, Agreed, Entered, Kept, event},
    ledger::{
        Backend, Draft, Entry, Kind, LedgerError, Micros, Outcome, Record, Seal,
        protocol::{ShowTests, show_tests},
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
    let Some(object) = context.tenants.newest(object) else {
        return Ok(Done { look_again: RESYNC, ..Done::default() });
    };
    let Some(namespace) =
        context.caches.namespaces.get(&ObjectRef::new(object.metadata.namespace.as_deref().unwrap_or_default()))
    else {
        // The namespace's event is on its way; it brings this object here again.
        return Ok(Done { look_again: REFUSED, ..Done::default() });
    };
    let rival = context.rivals.reserve(&object).err();
    let around = Surroundings { cluster: context.cluster, namespace: &namespace, rival: rival.as_ref() };
    match validate::validate(&object, around) {
        Ok(tenant) if tenant.left_alone => leave_alone(context, object, &tenant).await,
        Ok(tenant) => {
            Pass {
                context,
                object,
                done: Done { look_again: RESYNC, ..Done::default() },
                last: None,
                agreed: false,
                unsaid: None,
            }
            .run(tenant)
            .await
        }
        Err(refusal) => refuse(context, &object, &refusal).await,
    }
}

struct Pass<'a> {
    context: &'a Context,
    object: Arc<TenantContainer>,
    done: Done,
    /// The last record that this pass has shown.
    last: Option<Record>,
    /// The ledger was seen to have everything that is shown.
    agreed: bool,
    /// Why the audit was not told of a request.
    unsaid: Option<LedgerError>,
}

impl Pass<'_> {
    async fn run(mut self, mut tenant: Tenant) -> Result<Done, PassError> {
        self.hold().await?;
        let mut observed = self.context.caches.observe(&tenant);
        mounts::ask(&self.context.client, &tenant, &mut observed, (self.context.clock)()).await;
        // Side by side: children never wait for the ledger, and what they were before decides what the request is called.
        let request = requests::new(&tenant, &observed);
        let first = plan::first(&tenant).map(|hop| (hop, observed.clone()));
        let (brought, begun) = join(self.bring(&tenant, &mut observed), self.begin(&tenant, request, first)).await;
        let mut brought = brought?;
        self.done.writes += brought.writes;
        let Begun { request, mut first } = begun?;
        match request {
            Ok(None) => {}
            Ok(Some(request)) => {
                self.done.records += 1;
                tenant.shown.status.operation = Some(request);
            }
            Err(error) => self.unsaid = Some(error),
        }
        let mut kept = Ok(None);
        // Boxed, as all that is rare: a pass that needs none of it carries none of it.
        tenant = Box::pin(self.agree(tenant, &observed)).await?;
        for _ in 0..MAX_HOPS {
            if brought.course == Course::Remove {
                return self.remove(&tenant, &observed).await;
            }
            let verdict = plan::conclude(&tenant, &brought.course, &observed, brought.trouble.as_ref(), brought.now);
            // What nobody saw is told before what follows from it.
            let unseen = chain::unseen(tenant.chain(), tenant.shown.status.observed_generation);
            if let (None, Some(retry)) = (&unseen, &verdict.retry) {
                let (client, pods) = (&self.context.client, &self.context.caches.pods);
                // Before it is noted: a fresh pod is not broken, so what is done twice is done once.
                self.done.writes += Box::pin(remake::remake(client, pods, &tenant, &retry.pods, &mut observed)).await?;
                tenant.shown.status.retries = Some(retry.status.clone());
                info!(uid = %tenant.target.uid, namespace = %tenant.target.namespace, name = %tenant.target.name,
                    pods = retry.pods.len(), count = retry.status.count, "tried again");
                let is_told = verdict.hop.as_ref().is_some_and(|hop| hop.transition.from() == Some(State::Failed));
                if !is_told {
                    continue;
                }
            }
            let draft = unseen.or_else(|| Some(record::transition(&tenant, verdict.hop.as_ref()?)));
            let Some(draft) = draft.filter(|_| kept.is_ok()) else {
                return self.settle(tenant, &observed, verdict, kept, brought.now).await;
            };
            let recorded = match first.take() {
                Some(recorded) => recorded,
                None => self.record(&tenant, &observed, draft, brought.now).await,
            };
            match recorded {
                Ok(entered) => {
                    self.done.records += entered.entries;
                    tenant = self.show_hop(tenant, &observed, entered, &verdict.standing).await?;
                    kept = Ok(Some(self.context.ledger.backend()));
                    brought = self.bring(&tenant, &mut observed).await?;
                    self.done.writes += brought.writes;
                }
                Err(PassError::Ledger(error)) => kept = Err(error),
                Err(other) => return Err(other),
            }
        }
        Err(PassError::Endless(tenant.target.to_string()))
    }

    /// Without the finalizer an object would be gone before its end is recorded. The API server adds it at creation where
    /// the chart's policy is; here it is added where the policy is not.
    async fn hold(&mut self) -> Result<(), PassError> {
        let metadata = &self.object.metadata;
        let held = metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
        if !held && metadata.deletion_timestamp.is_none() {
            self.object = self.context.tenants.wrote(chain::hold(&self.context.client, &*self.object).await?);
            self.done.writes += 1;
        }
        Ok(())
    }

    /// Brings the ledger and what is shown together, where they may differ.
    async fn agree(&mut self, mut tenant: Tenant, observed: &Observed) -> Result<Tenant, PassError> {
        let is_unsynced = chain::is_unsynced(&tenant.shown.status.conditions);
        let keeper = self.context.keeper();
        let Some(rewinds) = chain::doubt(keeper, tenant.chain(), is_unsynced) else { return Ok(tenant) };
        if chain::is_cleared(keeper.ledger, tenant.chain()).await {
            tenant.shown.status.ledger.pending.clear();
        }
        let now = (self.context.clock)();
        let seal = self.seal(now)?;
        let present = |state, head| record::snapshot(&tenant, observed, state, head, seal.epoch, now);
        let agreed = chain::agree::<TenantContainer>(keeper, tenant.chain(), rewinds, seal, present).await;
        match agreed? {
            Agreed::Show(entered) => {
                self.done.records += entered.entries;
                let standing = Standing::OnTheWay { reason: "LedgerAhead", message: String::new() };
                self.show_hop(tenant, observed, *entered, &standing).await
            }
            Agreed::Seen => {
                self.agreed = true;
                Ok(tenant)
            }
            Agreed::Unsaid { entries } => {
                self.done.records += entries;
                Ok(tenant)
            }
            // The service does not wait for its ledger to be put right.
            Agreed::Not(error) => {
                self.unsaid = Some(error);
                Ok(tenant)
            }
        }
    }

    /// Children as they should be.
    async fn bring(&self, tenant: &Tenant, observed: &mut Observed) -> Result<Brought, PassError> {
        // One moment for plan and conclusion: between two, a drain could end unseen by either.
        let now = (self.context.clock)();
        let planned = plan::plan(tenant, observed, now);
        let course = admission::admit(self.context, tenant, observed, planned).await?;
        let Course::Keep(children) = &course else {
            return Ok(Brought { now, course, writes: 0, trouble: None });
        };
        // What has run keeps its place, also where somebody took its StatefulSet away.
        let has_nothing = matches!(tenant.shown.state, None | Some(State::Pending)) && observed.stateful_set.is_none();
        let handed_back = if children.wait.is_some() && has_nothing {
            Box::pin(admission::hand_back(self.context, tenant, &self.object)).await?
        } else {
            0
        };
        let (client, caches) = (&self.context.client, &self.context.caches);
        let Applied { mut writes, trouble } = apply::apply(client, caches, tenant, children, observed).await?;
        writes += handed_back;
        let resizes = cpu::resizes(tenant, observed, now);
        if !resizes.is_empty() && children.wait.is_none() {
            writes += Box::pin(resize::resize(client, &caches.pods, tenant, resizes, observed)).await?;
        }
        Ok(Brought { now, course, writes, trouble })
    }

    fn seal(&self, at: Micros) -> Result<Seal, PassError> {
        let epoch = (self.context.epoch)().ok_or(PassError::NotLeader)?;
        Ok(Seal { cluster: self.context.cluster, epoch, at })
    }

    /// Tells the ledger what is known before the children are brought: the request, if nobody has noted it yet, and that a
    /// new service is accepted, whatever its children will be.
    async fn begin(
        &self,
        tenant: &Tenant,
        request: Option<OperationStatus>,
        first: Option<(Hop, Observed)>,
    ) -> Result<Begun, PassError> {
        let now = (self.context.clock)();
        let request = match request {
            None => Ok(None),
            Some(request) => audit::start(&self.context.ledger, tenant, request, self.seal(now)?).await.map(Some),
        };
        let first = match first {
            None => None,
            Some((hop, observed)) => {
                let mut tenant = tenant.clone();
                // States do not wait for the audit: whoever shows them next tells of the request again.
                if let Ok(Some(request)) = &request {
                    tenant.shown.status.operation = Some(request.clone());
                }
                Some(self.record(&tenant, &observed, record::transition(&tenant, &hop), now).await)
            }
        };
        Ok(Begun { request, first })
    }

    /// Notes what came of the request, if it is over.
    async fn finish(&mut self, tenant: &mut Tenant, standing: &Standing, at: Micros) -> Result<(), PassError> {
        let Some(result) = requests::outcome(tenant, standing) else { return Ok(()) };
        if let Some(request) = &tenant.shown.status.operation {
            let seal = self.seal(at)?;
            let finished = audit::finish(&self.context.ledger, tenant, request, result, seal).await?;
            self.done.records += 1;
            tenant.shown.status.operation = Some(finished);
        }
        Ok(())
    }

    async fn submit(&mut self, entry: Entry) -> Result<Outcome, LedgerError> {
        let outcome = self.context.ledger.submit(entry).await?;
        self.done.records += 1;
        Ok(outcome)
    }

    /// Makes a record durable. What comes back is the record to show: ours, or the one that the ledger had already.
    async fn record(
        &self,
        tenant: &Tenant,
        observed: &Observed,
        draft: Draft,
        now: Micros,
    ) -> Result<Entered, PassError> {
        let seal = self.seal(now)?;
        let present = |state, head| record::snapshot(tenant, observed, state, head, seal.epoch, now);
        let kept = chain::keep::<TenantContainer>(self.context.keeper(), tenant.chain(), draft, seal, present).await;
        Ok(kept?)
    }

    /// Shows a durable record. The next plan starts from the tenant that comes back.
    async fn show_hop(
        &mut self,
        mut tenant: Tenant,
        observed: &Observed,
        entered: Entered,
        standing: &Standing,
    ) -> Result<Tenant, PassError> {
        let Entered { record, carried, before, entries: _, taken } = entered;
        let standing = if before {
            // What led to it is not what was seen now.
            Standing::OnTheWay {
                reason: "LedgerAhead",
                message: "the ledger had this state already; what follows from it comes next".to_owned(),
            }
        } else {
            standing.clone()
        };
        let envelope = record.envelope();
        tenant.shown.state = envelope.to.or(tenant.shown.state);
        tenant.shown.head = record.head();
        if envelope.kind == Kind::Transition {
            tenant.shown.since = Some(envelope.at);
        }
        match self.finish(&mut tenant, &standing, envelope.at).await {
            // The audit has the request unfinished until the next pass tells again; the state itself is durable.
            Err(PassError::Ledger(error)) => {
                warn!(uid = %tenant.target.uid, error = error.explain(), "the end of a request was not noted");
            }
            other => other?,
        }
        if carried {
            tenant.shown.status.ledger.pending.push(record.bytes().to_owned());
        }
        let trouble = self.context.ledger.trouble();
        let kept = if tenant.shown.status.ledger.pending.is_empty() {
            Kept::In(self.context.ledger.backend())
        } else {
            Kept::Away(trouble.as_ref())
        };
        let mut shown = if chain::is_no_news(&record) {
            status::as_it_was(&tenant.shown.status, kept, envelope.at)
        } else {
            status::of(&tenant, observed, &standing, kept, envelope.at)
        };
        shown.observed_generation = chain::seen(&record, tenant.shown.status.observed_generation, tenant.generation);
        status::advance(&mut shown, &record);
        let news = reason_of(&shown) != self.object.status.as_ref().and_then(reason_of);
        self.write_status(&tenant, &shown, show_tests(envelope.to == Some(State::Deleted))).await?;
        self.context.told.shows(tenant.target.uid, record.head(), taken);
        info!(
            uid = %tenant.target.uid, namespace = %tenant.target.namespace, name = %tenant.target.name,
            from = envelope.from.map_or("", State::as_str), to = envelope.to.map_or("", State::as_str),
            reason = %envelope.reason, sequence = envelope.seq, "state"
        );
        let message = chain::detail(&record, chain::MESSAGE).unwrap_or_default();
        self.publish(&envelope.reason, &message, envelope.to == Some(State::Failed));
        if let (true, Standing::Waiting(failure)) = (news, &standing) {
            self.publish(failure.reason, &failure.message, true);
        }
        tenant.shown.status = shown;
        self.last = Some(record);
        Ok(tenant)
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
            match self.finish(&mut tenant, &verdict.standing, now).await {
                Err(PassError::Ledger(failed)) => error = Some(failed),
                other => other?,
            }
        }
        // While it is starting, replicas change every moment; the record of how that ends carries them all.
        if error.is_none() && tenant.shown.state != Some(State::Pending) {
            let snapshot =
                record::snapshot(&tenant, observed, tenant.shown.state, tenant.shown.head, self.seal(now)?.epoch, now);
            if self.context.told.is_news(&snapshot) {
                match self.submit(Entry::Present(Box::new(snapshot.clone()))).await {
                    Ok(_) => self.context.told.note(&snapshot),
                    Err(failed) => error = Some(failed),
                }
            }
        }
        let trouble = self.context.ledger.trouble();
        let kept = match (&error, kept) {
            (Some(error), _) => Kept::Not(error),
            _ if !tenant.shown.status.ledger.pending.is_empty() => Kept::Away(trouble.as_ref()),
            (None, Ok(Some(backend))) => Kept::In(backend),
            _ if self.unsaid.is_some() => Kept::AsBefore,
            _ if self.agreed && before.ledger.backend.is_some() => Kept::In(self.context.ledger.backend()),
            (None, _) if chain::is_unsynced(&before.conditions) => Kept::In(self.context.ledger.backend()),
            (None, _) => Kept::AsBefore,
        };
        let standing = match (&error, &verdict.hop) {
            (Some(error @ LedgerError::Full { .. }), _) => {
                Standing::Stuck(Failure { reason: error.reason(), message: error.to_string() })
            }
            // What is not durable is not shown, in conditions no more than in the phase.
            (Some(error), Some(hop)) => Standing::OnTheWay {
                reason: error.reason(),
                message: format!("it is {} in fact, which is not shown until the ledger has it", hop.transition.to()),
            },
            _ => verdict.standing.clone(),
        };
        let mut shown = status::of(&tenant, observed, &standing, kept, now);
        if error.is_some() && chain::unseen(tenant.chain(), tenant.shown.status.observed_generation).is_some() {
            // Else the next pass would not know that there was something which nobody saw.
            shown.observed_generation = before.observed_generation;
        }
        let calm = status::calm_at(&tenant, &before, &shown, now);
        if shown != before && calm.is_none() {
            let news = reason_of(&shown) != reason_of(&before);
            self.write_status(&tenant, &shown, ShowTests::Head).await?;
            if let (true, Standing::Stuck(failure) | Standing::Waiting(failure)) =
                (news && verdict.hop.is_none(), &verdict.standing)
            {
                self.publish(failure.reason, &failure.message, true);
            }
        }
        if matches!(verdict.standing, Standing::AsDesired { .. }) && error.is_none() {
            self.done.writes += Box::pin(admission::give_back(self.context, &tenant, &self.object)).await?;
        }
        let own = verdict.look_again.into_iter().chain(calm).min();
        let wait =
            |at: Micros| Duration::from_micros(u64::try_from(at.0 - now.0).unwrap_or(0)) + Duration::from_millis(5);
        if let Some(at) = own {
            self.done.look_again = self.done.look_again.min(wait(at));
        }
        if let Some(wait) = chain::look_again(self.context.keeper(), tenant.chain(), &shown.conditions) {
            self.done.look_again = self.done.look_again.min(wait);
        }
        match error.or(self.unsaid) {
            None => Ok(self.done),
            Some(source) => Err(PassError::Untold { source, look_again: own.map(wait) }),
        }
    }

    async fn write_status(
        &mut self,
        tenant: &Tenant,
        shown: &TenantContainerStatus,
        tests: ShowTests,
    ) -> Result<(), PassError> {
        let written = chain::show(&self.context.client, &tenant.target, &*self.object, tests, shown).await?;
        self.done.writes += 1;
        self.object = self.context.tenants.wrote(written);
        Ok(())
    }

    /// The last record is shown: first the children go, then the finalizer.
    async fn remove(mut self, tenant: &Tenant, observed: &Observed) -> Result<Done, PassError> {
        let is_bare =
            tenant.orphaning || apply::remove(&self.context.client, &self.context.caches, tenant, observed).await?;
        if is_bare {
            let now = (self.context.clock)();
            let epoch = self.seal(now)?.epoch;
            let (keeper, last) = (self.context.keeper(), self.last.as_ref());
            let parted = chain::let_go(keeper, tenant.chain(), &*self.object, last, epoch, now).await?;
            self.done.writes += parted.writes();
            if let Some(released) = parted.released {
                self.context.tenants.released(released);
            }
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
    trouble: Option<Trouble>,
}

/// What the ledger was told of while the children were brought.
struct Begun {
    /// The request, if it is new.
    request: Result<Option<OperationStatus>, LedgerError>,
    /// The first record of a new service.
    first: Option<Result<Entered, PassError>>,
}

/// Writes nothing but that nothing is written. The finalizer stays, or comes: the end of the object is recorded in any case.
async fn leave_alone(context: &Context, object: Arc<TenantContainer>, tenant: &Tenant) -> Result<Done, PassError> {
    let mut done = Done { look_again: RESYNC, ..Done::default() };
    let held = object.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    let object = if held {
        object
    } else {
        done.writes += 1;
        context.tenants.wrote(chain::hold(&context.client, &*object).await?)
    };
    let before = object.status.clone().unwrap_or_default();
    let shown = status::left_alone(&before, (context.clock)());
    if shown != before {
        context.tenants.wrote(chain::show(&context.client, &tenant.target, &*object, ShowTests::Head, &shown).await?);
        done.writes += 1;
        info!(uid = %tenant.target.uid, namespace = %tenant.target.namespace, name = %tenant.target.name, "left alone, as asked");
        publish(context, &object, status::RECONCILE_DISABLED, status::LEFT_ALONE, false);
    }
    Ok(done)
}

async fn refuse(context: &Context, object: &Arc<TenantContainer>, refusal: &Refusal) -> Result<Done, PassError> {
    let mut done = Done { look_again: REFUSED, ..Done::default() };
    let Ok(target) = validate::identify(object, context.cluster) else { return Ok(done) };
    let before = object.status.clone().unwrap_or_default();
    let finalized = object.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    if object.metadata.deletion_timestamp.is_some() && before.phase.is_none() && finalized {
        // It was never accepted: there is no chain to end and no child to delete.
        if let Some(released) = chain::release(&context.client, &target, &**object).await? {
            context.tenants.released(released);
            done.writes += 1;
        }
        return Ok(done);
    }
    let shown = status::refused(&before, refusal, object.metadata.generation.unwrap_or_default(), (context.clock)());
    if shown != before {
        let news = reason_of(&shown) != reason_of(&before);
        context.tenants.wrote(chain::show(&context.client, &target, &**object, ShowTests::Head, &shown).await?);
        done.writes += 1;
        if news {
            warn!(uid = %target.uid, namespace = %target.namespace, name = %target.name, reason = refusal.reason(), "refused: {refusal}");
            publish(context, object, refusal.reason(), &refusal.to_string(), true);
        }
    }
    Ok(done)
}

/// There is at most one for each state that begins.
fn publish(context: &Context, object: &TenantContainer, reason: &str, message: &str, warning: bool) {
    event::publish(&context.recorder, object.object_ref(&()), warning, reason, message);
}

fn reason_of(status: &TenantContainerStatus) -> Option<&str> {
    status.conditions.iter().find(|condition| condition.type_ == "Ready").map(|condition| condition.reason.as_str())
}
