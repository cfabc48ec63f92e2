//! Flipped bits and missing bytes (row 9 of the fault matrix).

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn a_flipped_bit_in_the_last_8_kib_costs_at_most_its_own_frame() {
    let source = dir();
    let spool = Spool::open(source.path(), "berth-0").unwrap();
    fill(&spool, 3, 4).await;
    spool.close().await.unwrap();
    let file = segment_files(source.path()).pop().unwrap();
    let whole = fs::read(&file).unwrap();
    let numbers = |bytes: &[u8]| -> Vec<(u64, usize, usize)> {
        let segment = scan::Segment::parse(file.clone(), 1, bytes.to_vec()).unwrap();
        segment
            .walk()
            .filter_map(|met| match met {
                frame::Met::Entry { position, number, payload } => {
                    Some((number, position, position + frame::FRAME_HEADER + payload.len()))
                }
                frame::Met::Thinned { .. } | frame::Met::Seal | frame::Met::Damage { .. } => None,
            })
            .collect()
    };
    let before = numbers(&whole);
    assert_eq!(before.len(), 12);
    assert!(whole.len() > 8 << 10, "{}", whole.len());
    for at in whole.len() - (8 << 10)..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        let hit = |&(_, start, end): &(u64, usize, usize)| (start..end).contains(&at);
        let expected: Vec<_> = before.iter().filter(|frame| !hit(frame)).copied().collect();
        assert_eq!(numbers(&flipped), expected, "a damaged frame was read: bit {} of byte {at}", at % 8);
    }
    // Through the whole way: opened, named, kept aside, written on.
    for hit in [4, 8] {
        let broken = dir();
        fs::create_dir_all(broken.path().join(scan::JOURNAL)).unwrap();
        let mut flipped = whole.clone();
        let (number, start, end) = before[hit];
        flipped[start + 100] ^= 4;
        fs::write(broken.path().join(scan::JOURNAL).join(file.file_name().unwrap()), &flipped).unwrap();
        let spool = open_small(broken.path());
        let damages = spool.health().damages;
        assert!(
            matches!(&damages[..], [d] if (d.number, d.offset, &d.kind) == (number, start as u64, &DamageKind::Frames(Some(1)))),
            "{damages:?}"
        );
        let aside: Vec<_> = fs::read_dir(broken.path().join(scan::ASIDE)).unwrap().collect();
        assert_eq!(fs::read(aside[0].as_ref().unwrap().path()).unwrap(), &flipped[start..end]);
        spool.close().await.unwrap();
        let spool = open_small(broken.path());
        let again = spool.health().damages;
        assert!(matches!(&again[..], [d] if d.number == number && d.kind == DamageKind::Missing(1)), "{again:?}");
        spool.close().await.unwrap();
    }
}

/// Everything that is replayed from the beginning, a few at a time.
async fn replay(spool: &Spool) -> Vec<crate::ledger::Hash> {
    let (mut number, mut hashes) = (0, vec![]);
    while number < spool.progress().last {
        let stretch = spool.after(number, 7).await.unwrap();
        assert!(stretch.up_to > number, "the replayer gets on");
        hashes.extend(stretch.entries.iter().map(|entry| record(entry).hash()));
        number = stretch.up_to;
    }
    hashes
}

fn aside(dir: &Path) -> Vec<Vec<u8>> {
    let mut kept: Vec<_> = fs::read_dir(dir.join(scan::ASIDE)).unwrap().map(|file| file.unwrap().path()).collect();
    kept.sort();
    kept.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

#[tokio::test]
async fn damage_that_comes_while_the_journal_is_open_is_named_counted_once_and_kept_aside_before_it_is_acknowledged() {
    let dir = dir();
    let spool = open_small(dir.path());
    let mut sample = Sample::new(1);
    let mut told = vec![];
    for _ in 0..30 {
        let entry = sample.step();
        spool.keep(entry.clone()).await.unwrap();
        told.push(record(&entry).hash());
    }
    assert_eq!((replay(&spool).await, spool.health().damages), (told.clone(), vec![]));

    let files = segment_files(dir.path());
    assert!(files.len() > 3, "{files:?}");
    let (mut lost, mut expected, mut kept) = (vec![], vec![], vec![]);
    // A segment that is full, and the one that is written.
    for file in [&files[0], &files[files.len() - 1]] {
        let first = file.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let mut bytes = fs::read(file).unwrap();
        let framed = frames(&scan::Segment::parse(file.clone(), first, bytes.clone()).unwrap());
        let (number, range) = framed[framed.len() / 2].clone();
        bytes[range.start + 100] ^= 4;
        kept.push(bytes[range.clone()].to_vec());
        // What is behind the last durable entry is being written.
        bytes.extend_from_slice(if first == 1 { b"" } else { frame::FRAME_MAGIC });
        fs::write(file, &bytes).unwrap();
        let (offset, length) = (range.start as u64, range.len() as u64);
        lost.push(number);
        let kind = DamageKind::Frames(Some(1));
        expected.push(Damage { file: file.clone(), offset, bytes: length, number, kind });
    }
    let whole: Vec<_> = (1..).zip(&told).filter(|(number, _)| !lost.contains(number)).map(|(_, hash)| *hash).collect();
    for _ in 0..2 {
        assert_eq!(replay(&spool).await, whole, "every whole entry, behind the damage too");
        assert_eq!((spool.health().damages, aside(dir.path())), (expected.clone(), kept.clone()));
    }
    spool.acknowledge(u64::MAX);
    spool.close().await.unwrap();
}

#[tokio::test]
async fn a_segment_that_is_lost_while_the_journal_is_open_is_counted_once_and_one_that_was_trimmed_never() {
    let dir = dir();
    let spool = open_with(dir.path(), Limits { tail_bytes: 20 << 10, ..SHORT });
    let mut sample = Sample::new(1);
    for _ in 0..40 {
        spool.keep(sample.step()).await.unwrap();
    }
    let whole = replay(&spool).await.len() as u64;
    spool.acknowledge(30);
    spool.flush().await;
    let first = spool.progress().first;
    assert!(first > 1, "trimmed");
    assert_eq!((replay(&spool).await.len() as u64, spool.health().damages), (whole - (first - 1), vec![]));

    let firsts = scan::segments(dir.path()).unwrap();
    let count = firsts[2] - firsts[1];
    fs::remove_file(scan::segment_path(dir.path(), firsts[1])).unwrap();
    let missing = Damage {
        file: scan::segment_path(dir.path(), firsts[2]),
        offset: 0,
        bytes: 0,
        number: firsts[1],
        kind: DamageKind::Missing(count),
    };
    for _ in 0..2 {
        assert_eq!(replay(&spool).await.len() as u64, whole - (first - 1) - count);
        assert_eq!(spool.health().damages, std::slice::from_ref(&missing));
    }
    // Of the first one, from wherever it is read.
    fs::remove_file(scan::segment_path(dir.path(), firsts[0])).unwrap();
    for number in [0, first] {
        spool.after(number, 7).await.unwrap();
        let damages = spool.health().damages;
        assert_eq!(damages.iter().map(|damage| damage.number).collect::<Vec<_>>(), [firsts[1], firsts[0]]);
    }
    spool.close().await.unwrap();
}

#[tokio::test]
async fn a_whole_frame_that_holds_no_entry_is_kept_aside_too() {
    let dir = dir();
    let spool = open_small(dir.path());
    fill(&spool, 1, 20).await;
    let file = segment_files(dir.path()).remove(0);
    let segment = scan::Segment::read(dir.path(), 1).unwrap();
    let mut strange = vec![];
    let mut bytes = frame::segment_header("berth-0", 1);
    for met in segment.walk() {
        match met {
            frame::Met::Entry { number: 2, .. } => {
                frame::write_frame(&mut strange, frame::Carries::Entry, 2, b"{\"entry\":\"what\"}");
                bytes.extend_from_slice(&strange);
            }
            frame::Met::Entry { number, payload, .. } => {
                frame::write_frame(&mut bytes, frame::Carries::Entry, number, payload);
            }
            _ => {}
        }
    }
    fs::write(&file, &bytes).unwrap();
    let is_named = |damages: Vec<Damage>| matches!(&damages[..], [Damage { number: 2, kind: DamageKind::Payload(_), file: named, .. }] if *named == file);
    for _ in 0..2 {
        assert_eq!(replay(&spool).await.len(), 19);
        assert!(is_named(spool.health().damages), "{:?}", spool.health());
        assert_eq!(aside(dir.path()), [strange.clone()]);
    }
    spool.close().await.unwrap();

    fs::remove_dir_all(dir.path().join(scan::ASIDE)).unwrap();
    let spool = open_small(dir.path());
    replay(&spool).await;
    assert!(is_named(spool.health().damages), "what opening found is not found again: {:?}", spool.health());
    assert_eq!(aside(dir.path()), [strange]);
    spool.close().await.unwrap();
}

/// A journal of several segments with everything that can be in one; the last 64 KiB of it are looked at.
async fn mixed() -> tempfile::TempDir {
    let dir = dir();
    let spool = open_with(dir.path(), Limits { segment_bytes: 4 << 10, ..SHORT });
    let mut sample = Sample::new(1);
    for n in 0..45 {
        spool.keep(sample.step()).await.unwrap();
        spool.keep_later(vec![sample.carried(), sample.usage(2 * n)]);
        spool.keep(sample.usage(2 * n + 1)).await.unwrap();
        if n % 5 == 0 {
            let mark = ShownMark { target: sample.target(), terminal: sample.head, epoch: 7, at: Micros(n) };
            spool.note_mark(mark).await.unwrap();
        }
    }
    spool.close().await.unwrap();
    for (at, first) in scan::segments(dir.path()).unwrap().into_iter().enumerate() {
        if at % 2 == 0 {
            let thinned = thin::thin(&scan::Segment::read(dir.path(), first).unwrap(), "berth-0");
            fs::write(scan::segment_path(dir.path(), first), thinned.bytes).unwrap();
        }
    }
    dir
}

/// A frame: its number and where it stands.
type Framed = (u64, std::ops::Range<usize>);

fn frames(segment: &scan::Segment) -> Vec<Framed> {
    let framed = segment.walk().filter_map(|met| match met {
        frame::Met::Entry { position, number, payload } => {
            Some((number, position..position + frame::FRAME_HEADER + payload.len()))
        }
        frame::Met::Thinned { position, number, .. } => Some((number, position..position + frame::THINNED)),
        frame::Met::Seal | frame::Met::Damage { .. } => None,
    });
    framed.collect()
}

/// Reads a segment whose bytes were changed, as any reader does: the whole frames, and how many damages are named.
fn read_changed(segment: &scan::Segment, bytes: Vec<u8>, last: bool) -> (Vec<Framed>, usize) {
    let changed = scan::Segment::parse(segment.path.clone(), segment.first, bytes);
    // A flipped bit in the version alone is caught by the header's checksum.
    let changed = changed.unwrap();
    let mut scanned = scan::Scanned { damages: vec![], next: segment.first };
    scan::scan_segment(&changed, last, &mut scanned, &mut |_, _| Ok(()));
    (frames(&changed), scanned.damages.len())
}

#[tokio::test]
async fn every_byte_of_the_last_64_kib_may_be_flipped_or_be_the_last() {
    let dir = mixed().await;
    let firsts = scan::segments(dir.path()).unwrap();
    let (mut looked, mut left, mut faults, mut written) = (0, 64 << 10, 0, 0);
    for (at, &first) in firsts.iter().enumerate().rev() {
        let last = at + 1 == firsts.len();
        let segment = scan::Segment::read(dir.path(), first).unwrap();
        let whole = frames(&segment);
        written += whole.len();
        let size = segment.bytes.len();
        let seal = size - frame::FRAME_HEADER;
        for byte in (size.saturating_sub(left)..size).rev() {
            // Where it is not optimised: every one of the last 16 KiB, before that every seventh, with another bit each time.
            looked += 1;
            if cfg!(debug_assertions) && looked > 16 << 10 && byte % 7 != 0 {
                continue;
            }
            let mut flipped = segment.bytes.clone();
            flipped[byte] ^= 1 << (byte % 8);
            let (read, damages) = read_changed(&segment, flipped, last);
            let expected: Vec<_> = whole.iter().filter(|(_, range)| !range.contains(&byte)).cloned().collect();
            assert_eq!(read, expected, "bit {} of byte {byte} of {first}", byte % 8);
            assert!(damages > 0, "bit {} of byte {byte} of {first} is named", byte % 8);

            faults += 2;
            let (read, damages) = read_changed(&segment, segment.bytes[..byte].to_vec(), last);
            let expected: Vec<_> = whole.iter().filter(|(_, range)| range.end <= byte).cloned().collect();
            assert_eq!(read, expected, "cut at byte {byte} of {first}");
            let between = byte == 0 || byte == seal || whole.iter().any(|(_, range)| range.start == byte);
            assert!(damages > 0 || between, "cut at byte {byte} of {first} is named");
        }
        left = left.saturating_sub(size);
        if left == 0 {
            break;
        }
    }
    assert!(looked >= 64 << 10, "{looked}");
    tally::tell(1, faults, written);
}

#[tokio::test]
async fn a_damaged_journal_answers_every_question_and_opens() {
    let source = mixed().await;
    let files = segment_files(source.path());
    let whole: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    for at in 0..40 {
        let dir = dir();
        fs::create_dir_all(dir.path().join(scan::JOURNAL)).unwrap();
        fs::write(dir.path().join(scan::ACKNOWLEDGED), "{\"acknowledged\":3}").unwrap();
        let mut frames_left = 0;
        for (n, (file, bytes)) in files.iter().zip(&whole).enumerate() {
            let mut bytes = bytes.clone();
            let byte = (at * 997 + n * 131) % bytes.len();
            match (at + n) % 6 {
                0 => bytes[byte] ^= 1 << (byte % 8),
                1 => bytes.truncate(byte),
                _ => {}
            }
            let path = dir.path().join(scan::JOURNAL).join(file.file_name().unwrap());
            fs::write(&path, &bytes).unwrap();
            let first = file.file_stem().unwrap().to_str().unwrap().parse().unwrap();
            let segment = scan::Segment::parse(path, first, bytes).unwrap();
            frames_left += segment.walk().filter(|met| matches!(met, frame::Met::Entry { .. })).count();
        }
        let damages = read::tail(dir.path()).unwrap().damages.len();
        assert!(damages > 0);
        assert_eq!(read::timeline(dir.path(), "team", "user1").unwrap().damages.len(), damages);
        assert_eq!(read::find(dir.path(), "user1", "vectors").unwrap().damages.len(), damages);
        assert!(!crate::ledger::Reader::Spool(dir.path().to_owned()).verify().await.unwrap().is_clean());
        let spool = open_small(dir.path());
        assert!(!spool.health().damages.is_empty());
        let (mut number, mut read) = (0, spool.marks().len());
        while number < spool.progress().last {
            let stretch = spool.after(number, 7).await.unwrap();
            assert!(stretch.up_to > number);
            (number, read) = (stretch.up_to, read + stretch.entries.len());
        }
        // All marks are of one object.
        assert!(read <= frames_left && read + 9 > frames_left, "{read} of {frames_left}");
        assert_eq!(spool.keep(Sample::new(2).step()).await.unwrap(), DURABLE);
        spool.close().await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_bytes_make_the_scan_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), magic in 0usize..300) {
        let mut bytes = bytes;
        if magic + 4 <= bytes.len() {
            bytes[magic..magic + 4].copy_from_slice(frame::FRAME_MAGIC);
        }
        for first in [0, 1, u64::MAX] {
            if let Ok(segment) = scan::Segment::parse(PathBuf::from("x"), first, bytes.clone()) {
                let mut scanned = scan::Scanned::default();
                scan::scan_segment(&segment, true, &mut scanned, &mut |_, _| Ok(()));
            }
        }
    }
}
