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
    let (mut looked, mut left) = (0, 64 << 10);
    for (at, &first) in firsts.iter().enumerate().rev() {
        let last = at + 1 == firsts.len();
        let segment = scan::Segment::read(dir.path(), first).unwrap();
        let whole = frames(&segment);
        let size = segment.bytes.len();
        let seal = size - frame::FRAME_HEADER;
        for byte in (size.saturating_sub(left)..size).rev() {
            // Every one of the last 16 KiB; before that every seventh, with another bit each time.
            looked += 1;
            if looked > 16 << 10 && byte % 7 != 0 {
                continue;
            }
            let mut flipped = segment.bytes.clone();
            flipped[byte] ^= 1 << (byte % 8);
            let (read, damages) = read_changed(&segment, flipped, last);
            let expected: Vec<_> = whole.iter().filter(|(_, range)| !range.contains(&byte)).cloned().collect();
            assert_eq!(read, expected, "bit {} of byte {byte} of {first}", byte % 8);
            assert!(damages > 0, "bit {} of byte {byte} of {first} is named", byte % 8);

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
