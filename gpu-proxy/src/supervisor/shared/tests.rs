//! Who may have what, for how long, and where it counts.

use std::sync::Arc;

use rustix::fs::fstat;

use super::*;
use crate::shared_page::SharedPage;

const BYTES: u64 = 2 << 20;
const WRONG: CuResult<()> = Err(CuError::INVALID_VALUE);

/// One zone with workers 1, 2 and 4 of a container and worker 3 of another one.
struct Zone {
    shared: Shared,
    grants: [Grant; 2],
}

fn zone() -> Zone {
    let grant = || Grant::new(Arc::new(SharedPage::create().unwrap()), 1 << 30);
    Zone { shared: Shared::default(), grants: [grant(), grant()] }
}

impl Zone {
    fn ask(&mut self, worker: u64, question: Question) -> CuResult<(Answer, Option<Foreign>)> {
        self.ask_with(worker, question, None, usize::MAX)
    }

    fn ask_with(
        &mut self,
        worker: u64,
        question: Question,
        fd: Option<OwnedFd>,
        room: usize,
    ) -> CuResult<(Answer, Option<Foreign>)> {
        let Self { shared, grants } = self;
        let grant_of = |worker: WorkerId, _| Some(grants[usize::from(worker.0 == 3)].clone());
        // Worker 4 drives another device of the node, worker 5 both, which it sees in another order.
        let devices: &[u32] = match worker {
            4 => &[1],
            5 => &[1, 0],
            _ => &[0],
        };
        let bounds = ((DeviceKind::Soft, devices), 1 << 30, room);
        shared.answer(WorkerId(worker), (question, fd.map(Given::look_at)), bounds, grant_of)
    }

    fn put(&mut self, worker: u64) -> Token {
        self.ask(worker, Question::Put { bytes: BYTES, device: 0 }).unwrap().0.token
    }

    fn get(&mut self, worker: u64, token: Token) -> CuResult<()> {
        self.ask(worker, Question::Get(token)).map(drop)
    }

    fn close(&mut self, worker: u64, token: Token) -> CuResult<()> {
        self.ask(worker, Question::Close(token)).map(drop)
    }

    fn let_go(&mut self, worker: u64, token: Token) -> CuResult<()> {
        self.ask(worker, Question::LetGo(token)).map(drop)
    }

    fn ended(&mut self, worker: u64) {
        let Self { shared, grants } = self;
        shared.ended(WorkerId(worker), |worker, _| Some(grants[usize::from(worker.0 == 3)].clone()));
    }

    /// What counts against either container, beside what workers say themselves.
    fn left(&self) -> [u64; 2] {
        [0, 1].map(|number: usize| self.grants[number].left_bytes())
    }

    fn is_empty(&self) -> bool {
        self.shared.memories.is_empty() && self.shared.uses == 0 && self.shared.descriptors == 0
    }
}

#[test]
fn memory_counts_with_its_maker_and_then_with_who_has_it_longest() {
    let mut zone = zone();
    let token = zone.put(1);
    zone.get(3, token).unwrap();
    zone.get(2, token).unwrap();
    assert_eq!(
        (zone.left(), zone.shared.descriptors()),
        ([0, BYTES], 1),
        "another container's from the first"
    );
    zone.let_go(1, token).unwrap();
    assert_eq!((zone.left(), zone.shared.descriptors()), ([BYTES, BYTES], 0));
    assert_eq!(zone.get(2, token), WRONG, "nobody gets what its maker has no more");
    zone.close(3, token).unwrap();
    assert_eq!(zone.left(), [BYTES, 0]);
    zone.close(2, token).unwrap();
    assert_eq!((zone.left(), zone.is_empty()), ([0, 0], true));
}

/// A container with little and one that makes: together they have no more than both were granted.
#[test]
fn no_container_is_given_more_than_its_grant_by_another_one() {
    let mut zone = zone();
    zone.grants[1].set_limit(2 * BYTES);
    let [one, two, three] = [zone.put(1), zone.put(1), zone.put(1)];
    zone.get(3, one).unwrap();
    zone.get(3, two).unwrap();
    assert_eq!(zone.get(3, three), Err(CuError::OUT_OF_MEMORY));
    assert_eq!(zone.get(3, one), Err(CuError::OUT_OF_MEMORY), "each time it has it");
    assert_eq!(zone.left(), [0, 2 * BYTES]);
    zone.close(3, one).unwrap();
    zone.get(3, three).unwrap();
    zone.ended(3);
    assert_eq!(zone.left(), [0, 0]);
}

#[test]
fn deaths_leave_nothing_and_count_nothing_twice() {
    let mut zone = zone();
    let [one, two] = [zone.put(1), zone.put(1)];
    for worker in [2, 2, 3] {
        zone.get(worker, one).unwrap();
    }
    zone.ended(1);
    assert_eq!((zone.left(), zone.get(2, two)), ([BYTES, BYTES], WRONG));
    zone.close(2, one).unwrap();
    assert_eq!(zone.left(), [BYTES, BYTES], "it has it once more");
    zone.ended(2);
    assert_eq!(zone.left(), [0, BYTES]);
    zone.ended(3);
    assert_eq!((zone.left(), zone.is_empty()), ([0, 0], true));
}

#[test]
fn a_worker_changes_nothing_that_is_not_its_own() {
    let mut zone = zone();
    let token = zone.put(1);
    assert_eq!(zone.let_go(2, token), WRONG);
    assert_eq!(zone.close(1, token), WRONG, "it never got it");
    zone.get(2, token).unwrap();
    assert_eq!((zone.close(3, token), zone.close(1, token)), (WRONG, WRONG));
    assert_eq!(zone.get(2, Token([0; 16])), WRONG);
    zone.close(2, token).unwrap();
    zone.let_go(1, token).unwrap();
    assert_eq!((zone.let_go(1, token), zone.close(2, token), zone.is_empty()), (WRONG, WRONG, true));
    // Its own it may have as well as others.
    let token = zone.put(1);
    zone.get(1, token).unwrap();
    zone.let_go(1, token).unwrap();
    assert_eq!(zone.left(), [BYTES, 0]);
    zone.ended(1);
    assert!(zone.is_empty());
}

#[test]
fn what_is_put_and_got_has_an_end() {
    let mut zone = zone();
    for bytes in [0, (1 << 30) + 1, u64::MAX] {
        assert_eq!(zone.ask(1, Question::Put { bytes, device: 0 }).unwrap_err(), CuError::INVALID_VALUE);
    }
    let put = Question::Put { bytes: BYTES, device: 0 };
    assert_eq!(zone.ask_with(1, put, None, 0).unwrap_err(), CuError::OUT_OF_MEMORY, "others have all");
    let token = zone.put(1);
    for _ in 1..PER_ZONE_MAX {
        zone.put(2);
    }
    assert_eq!(zone.ask(1, put).unwrap_err(), CuError::OUT_OF_MEMORY);
    zone.grants[1].set_limit(u64::MAX);
    for _ in 0..USES_MAX {
        zone.get(3, token).unwrap();
    }
    assert_eq!(zone.get(3, token), Err(CuError::OUT_OF_MEMORY));
    zone.ended(2);
    zone.ended(3);
    zone.get(2, token).unwrap();
    zone.put(2);
    assert_eq!(zone.shared.descriptors(), 2);
}

#[test]
fn who_gets_memory_gets_that_of_its_maker_and_no_length_can_change() {
    let mut zone = zone();
    let (Answer { token, .. }, made) = zone.ask(1, Question::Put { bytes: BYTES, device: 0 }).unwrap();
    let (Answer { bytes, .. }, got) = zone.ask(2, Question::Get(token)).unwrap();
    let (made, got) = (made.unwrap(), got.unwrap());
    assert_eq!((bytes, fstat(&got).unwrap().st_ino), (BYTES, fstat(&made).unwrap().st_ino));
    assert!(rustix::fs::ftruncate(&got, 0).is_err(), "who maps it would die");
}

#[test]
fn nothing_but_memory_of_the_device_is_kept_for_others() {
    let mut zone = zone();
    let grant = zone.grants[0].clone();
    let mut put = |device, fd: Option<OwnedFd>| {
        let fd = fd.map(Given::look_at);
        let (question, bounds) =
            (Question::Put { bytes: BYTES, device: 0 }, ((device, &[0][..]), 1 << 30, usize::MAX));
        let answered = zone.shared.answer(WorkerId(1), (question, fd), bounds, |_, _| Some(grant.clone()));
        (answered.map(drop), zone.shared.take_gone().len())
    };
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    let null = || Some(std::fs::File::open("/dev/null").unwrap().into());
    assert_eq!(put(DeviceKind::Cuda, Some(reader)), (WRONG, 1), "a pipe");
    assert_eq!(put(DeviceKind::Cuda, null()), (WRONG, 1), "another device");
    assert_eq!(put(DeviceKind::Cuda, None), (WRONG, 0));
    assert_eq!(put(DeviceKind::Soft, null()), (WRONG, 1), "it has only what we make");
    assert_eq!((put(DeviceKind::Soft, None), put(DeviceKind::Null, None)), ((Ok(()), 0), (Ok(()), 0)));
}

/// What a worker of another container may open shows that container no GPU but its own.
#[test]
fn an_open_gpu_is_no_memory_and_neither_is_another_drivers_device() {
    use rustix::fs::makedev;
    let (device, disk) = (FileType::CharacterDevice.as_raw_mode(), FileType::BlockDevice.as_raw_mode());
    assert!(is_exported(device | 0o666, makedev(195, 255)));
    for (mode, of) in [
        (device, makedev(195, 0)),
        (device, makedev(195, 7)),
        (device, makedev(195, 254)),
        (device, makedev(1, 255)),
        (device, makedev(195, 255 + 256)),
        (disk, makedev(195, 255)),
        (FileType::RegularFile.as_raw_mode(), makedev(195, 255)),
    ] {
        assert!(!is_exported(mode, of), "mode {mode:o}, device {of:x}");
    }
}

/// The last end of a file may have much to do, and a hostile worker chooses the file.
#[test]
fn no_descriptor_is_closed_before_the_zones_are_unlocked() {
    let mut zone = zone();
    let [one, two] = [zone.put(1), zone.put(1)];
    assert!(zone.shared.take_gone().is_empty());
    let null = || Some(std::fs::File::open("/dev/null").unwrap().into());
    let put = Question::Put { bytes: BYTES, device: 0 };
    // What comes beside a question that has none, and beside one that is refused.
    for question in [
        put,
        Question::Put { bytes: 0, device: 0 },
        Question::Get(one),
        Question::Board,
        Question::LetGo(two),
    ] {
        let _ = zone.ask_with(1, question, null(), 0);
    }
    assert_eq!(zone.shared.take_gone().len(), 5 + 1, "and that of what was let go of");
    zone.ended(1);
    assert_eq!((zone.shared.take_gone().len(), zone.is_empty()), (1, true));
}

#[test]
fn nobody_gets_memory_of_a_device_that_it_does_not_drive() {
    let mut zone = zone();
    let (one, other) = (zone.put(1), zone.put(4));
    assert_eq!(zone.get(4, one), Err(CuError::NOT_SUPPORTED));
    assert_eq!(zone.get(1, other), Err(CuError::NOT_SUPPORTED));
    assert_eq!(zone.close(4, one), WRONG, "it has none");
    zone.get(2, one).unwrap();
    zone.get(4, other).unwrap();
}

#[test]
fn who_drives_several_devices_is_told_where_memory_lies_by_its_own_numbers() {
    let mut zone = zone();
    let (first, second) = (zone.put(1), zone.put(4));
    let on = |zone: &mut Zone, worker, token| zone.ask(worker, Question::Get(token)).unwrap().0.device;
    assert_eq!((on(&mut zone, 5, first), on(&mut zone, 5, second)), (1, 0));
    let put = |zone: &mut Zone, device| zone.ask(5, Question::Put { bytes: BYTES, device });
    let (answer, _) = put(&mut zone, 1).unwrap();
    assert_eq!((answer.device, on(&mut zone, 2, answer.token)), (1, 0));
    assert_eq!(zone.get(4, answer.token), Err(CuError::NOT_SUPPORTED));
    assert_eq!(put(&mut zone, 2).unwrap_err(), CuError::INVALID_VALUE, "it has two");
}

#[test]
fn tokens_are_not_alike() {
    let tokens: std::collections::BTreeSet<_> = (0..1000).map(|_| random_token().unwrap()).collect();
    assert_eq!(tokens.len(), 1000);
}
