//! Somebody dies in the middle of something, and containerd does what it does then: no task's end is told twice or never, nothing hangs, and
//! nothing is left.
//!
//! Each round is drawn from a seed, which is printed with what it means. `VGPU_KILLS_SEED` plays that round again, as far as the machine's
//! own timing lets it.

use std::{
    env,
    future::Future,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use containerd_shim_protos::{
    events::task::{TaskCreate, TaskDelete, TaskExecStarted, TaskExit, TaskStart},
    protobuf::Message,
};
use tokio::{
    task::{JoinHandle, JoinSet},
    time,
};
use vgpu_contract::mock::Event;

use crate::{
    COUNTING,
    containerd::until,
    plan::{Doing, Plan},
    random::Random,
    round::{Answer, EXEC, Pod},
};

const SEED: &str = "VGPU_KILLS_SEED";
const ROUNDS: usize = 50;
/// Few: what is looked at are times.
const BESIDE_EACH_OTHER: usize = 2;
/// What containerd's `delete` may take, and as much as passes from a SIGKILL, or a guest's end, to the word of it.
const LIMIT: Duration = Duration::from_secs(5);
/// Until containerd gives a Create up. It waits for minutes; what comes then is the same.
const PATIENCE: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn of_50_pods_that_lose_somebody_nothing_is_left() {
    let _alone = COUNTING.lock().await;
    let mut seeds = match env::var(SEED) {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            let mut random = Random::of(u64::try_from(now.as_micros()).unwrap());
            (0..ROUNDS).map(|_| random.next()).collect()
        }
    }
    .into_iter();
    let (mut rounds, mut wrong) = (JoinSet::new(), Vec::new());
    loop {
        while rounds.len() < BESIDE_EACH_OTHER
            && let Some(seed) = seeds.next()
        {
            let played = tokio::spawn(play(seed));
            rounds.spawn(async move { played.await.map_err(|why| format!("{SEED}={seed}: {why}")) });
        }
        let Some(played) = rounds.join_next().await else { break };
        wrong.extend(played.unwrap().err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn play(seed: u64) {
    let plan = Plan::of(seed);
    println!("{SEED}={seed} is {plan:?}");
    let pod = Arc::new(Pod::begin(&plan).await);
    let mut lives = pod.containerd.lives();
    let operation = {
        let (pod, doing) = (pod.clone(), plan.doing);
        tokio::spawn(async move { pod.does(doing).await })
    };
    let struck = in_time("the blow", pod.strike(&plan, &operation)).await;
    lives.extend(pod.containerd.lives());
    if plan.victim.cuts_off() {
        // What it was asked has no answer, or nobody hears it.
        operation.abort();
        let _ = operation.await;
    } else {
        if struck && plan.victim.ends_the_guest() {
            let told = || pod.ids().into_iter().all(|id| told(&pod, "start", id) <= told(&pod, "exit", id));
            in_time("the exits", until("they are told", told, String::new)).await;
        }
        end(&pod, plan.doing, operation).await;
        lives.extend(pod.containerd.lives());
        take_away(&pod).await;
    }
    clean_up(&pod).await;
    in_time("nothing is left", pod.containerd.assert_nothing_left(&lives)).await;
    assert_each_exit_is_told_once(&pod, plan.victim.cuts_off());
}

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let done = time::timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("{what}: not within {LIMIT:?}"));
    // What a round has taken its time with, to whom reads it.
    if begun.elapsed() > LIMIT / 2 {
        println!("{what}: after {:?}", begun.elapsed());
    }
    done
}

/// As kubelet ends a pod, whatever its containers are at.
async fn end(pod: &Arc<Pod>, doing: Doing, mut operation: JoinHandle<Answer>) {
    for id in pod.ids() {
        // It may not be there yet, or any more.
        let _ = in_time("State", pod.state(id)).await;
        let _ = in_time("Kill", pod.kill(id)).await;
    }
    if doing == Doing::Create && time::timeout(PATIENCE, &mut operation).await.is_err() {
        let _ = in_time("Delete of what is created", pod.delete(pod.id)).await;
    }
    if !operation.is_finished() {
        let _ = in_time("the operation", &mut operation).await;
    }
}

async fn take_away(pod: &Pod) {
    for id in pod.ids() {
        match in_time("State", pod.state(id)).await {
            Err(ttrpc::Error::RpcStatus(status)) if status.code() == ttrpc::Code::NOT_FOUND => continue,
            state => state.unwrap(),
        }
        // When it was killed, it may not have been there yet.
        let _ = in_time("Kill", pod.kill(id)).await;
        in_time("Wait", pod.wait(id)).await.unwrap();
        in_time("Delete", pod.delete(id)).await.unwrap();
    }
    in_time("the shim's end", pod.shim.end()).await;
}

/// Each connection to the shim is closed, so `delete` runs for each container.
async fn clean_up(pod: &Arc<Pod>) {
    let mut deletes = JoinSet::new();
    for id in pod.ids() {
        let containerd = pod.containerd.clone();
        deletes.spawn_blocking(move || {
            let begun = Instant::now();
            containerd.delete(id);
            assert!(begun.elapsed() < LIMIT, "delete of {id} was answered after {:?}", begun.elapsed());
        });
    }
    deletes.join_all().await;
    pod.ids().into_iter().for_each(|id| pod.containerd.remove_bundle(id));
}

/// How often something was told of a process.
fn told(pod: &Pod, topic: &str, whose: &str) -> usize {
    let events = pod.containerd.events();
    events.iter().filter(|event| event.topic == topic && subject(event) == whose).count()
}

/// Whose event it is: a container, or an exec of the only one that has execs.
fn subject(event: &Event) -> String {
    let message = event.message.as_slice();
    match event.topic.as_str() {
        "create" => TaskCreate::parse_from_bytes(message).unwrap().container_id,
        "start" => TaskStart::parse_from_bytes(message).unwrap().container_id,
        "exec-started" => TaskExecStarted::parse_from_bytes(message).unwrap().exec_id,
        "exit" => TaskExit::parse_from_bytes(message).unwrap().id,
        "delete" => TaskDelete::parse_from_bytes(message).unwrap().container_id,
        _ => String::new(),
    }
}

/// What a shim that is gone has not told, containerd tells by the answer of `delete`.
fn assert_each_exit_is_told_once(pod: &Pod, cut_off: bool) {
    let all = || pod.containerd.topics();
    for id in pod.ids() {
        let [created, started, exits, deleted] =
            ["create", "start", "exit", "delete"].map(|topic| told(pod, topic, id));
        assert!(started <= 1 && exits <= 1 && deleted <= 1, "{id}: {:?}", all());
        assert!(cut_off || (started <= exits && created == deleted), "{id}: {:?}", all());
    }
    let [started, exits] = ["exec-started", "exit"].map(|topic| told(pod, topic, EXEC));
    assert!(started <= 1 && exits <= 1 && (cut_off || started == exits), "{EXEC}: {:?}", all());
}
