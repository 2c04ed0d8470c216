//! Writing to a disk in memory.

use super::super::{WholeDisk, verify, write_whole_disk_image};
use super::*;
use futures_util::future::BoxFuture;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// A disk in memory, full of old data, that can fail at a block.
struct MemoryLun {
    bytes: Mutex<Vec<u8>>,
    block: u32,
    bad: Option<u64>,
    cheap: bool,
    /// Zeros wait until so many bytes of data are written.
    zeros_after: usize,
    /// A flush too.
    flushed_after: usize,
    /// When flushes ended: with so many bytes of data written.
    flushes: Mutex<Vec<usize>>,
    data: watch::Sender<usize>,
    /// What may be in flight, handed out in the order of asking as a session does.
    in_flight: Semaphore,
}

impl MemoryLun {
    fn new(size: usize, block: u32, bad: Option<u64>) -> Self {
        Self {
            bytes: Mutex::new(vec![0xAA; size]),
            block,
            bad,
            cheap: false,
            zeros_after: 0,
            flushed_after: 0,
            flushes: Mutex::default(),
            data: watch::Sender::new(0),
            in_flight: Semaphore::new(2),
        }
    }

    fn range(&self, lba: u64, length: usize) -> std::ops::Range<usize> {
        let start = usize::try_from(lba * u64::from(self.block)).unwrap();
        start..start + length
    }
}

impl Lun for MemoryLun {
    fn block_bytes(&self) -> u32 {
        self.block
    }
    fn blocks(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64 / u64::from(self.block)
    }
    fn write(&self, lba: u64, data: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let _share = self.in_flight.acquire_many(2).await.unwrap();
            tokio::task::yield_now().await;
            let end = lba + data.len() as u64 / u64::from(self.block);
            if self.bad.is_some_and(|bad| (lba..end).contains(&bad)) {
                return Err(Error::new(Kind::Io, "medium error"));
            }
            self.bytes.lock().unwrap()[self.range(lba, data.len())].copy_from_slice(&data);
            self.data.send_modify(|bytes| *bytes += data.len());
            Ok(())
        })
    }
    fn read(&self, lba: u64, blocks: u32) -> BoxFuture<'_, Result<Bytes>> {
        let range = self.range(lba, (blocks * self.block) as usize);
        Box::pin(async move {
            let _share = self.in_flight.acquire().await.unwrap();
            Ok(Bytes::copy_from_slice(&self.bytes.lock().unwrap()[range]))
        })
    }
    fn write_zeroes(&self, lba: u64, blocks: u64) -> BoxFuture<'_, Result<()>> {
        let length = usize::try_from(blocks * u64::from(self.block)).unwrap();
        Box::pin(async move {
            let mut data = self.data.subscribe();
            data.wait_for(|bytes| *bytes >= self.zeros_after)
                .await
                .unwrap();
            self.bytes.lock().unwrap()[self.range(lba, length)].fill(0);
            Ok(())
        })
    }
    fn zeroes_are_cheap(&self) -> bool {
        self.cheap
    }
    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            let mut data = self.data.subscribe();
            let enough = data.wait_for(|bytes| *bytes >= self.flushed_after).await;
            self.flushes.lock().unwrap().push(*enough.unwrap());
            Ok(())
        })
    }
}

/// 17 MiB and 100 bytes: data at both ends, a hole between.
fn image() -> (tempfile::NamedTempFile, Arc<ImageSource>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len((17 << 20) + 100).unwrap();
    file.as_file().write_all_at(&[1; 700_000], 0).unwrap();
    file.as_file().write_all_at(&[2; 100], 17 << 20).unwrap();
    let source = Arc::new(ImageSource::open(file.path(), None).unwrap());
    (file, source)
}

#[tokio::test]
async fn writes_data_and_zeros_and_verifies() {
    for block in [512, 4096] {
        let (file, source) = image();
        let lun = MemoryLun::new(32 << 20, block, None);
        let written = write_whole_disk_image(
            &lun,
            source,
            &WholeDisk::default(),
            &WriteOptions::default(),
        )
        .await
        .unwrap();
        let image = std::fs::read(file.path()).unwrap();
        assert!(lun.bytes.lock().unwrap()[..image.len()] == image);
        assert_eq!(
            lun.bytes.lock().unwrap()[20 << 20],
            0xAA,
            "beyond the image nothing is touched"
        );
        assert_eq!(
            written.zero_bytes,
            17 << 20,
            "holes, and old tables at the end"
        );
        verify(&lun, &written.manifest, &WriteOptions::default())
            .await
            .unwrap();
        lun.bytes.lock().unwrap()[8 << 20] = 1;
        let error = verify(&lun, &written.manifest, &WriteOptions::default())
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), &error.details()["offset"]),
            (Kind::Corrupt, &(8 << 20).into())
        );
    }
}

#[tokio::test]
async fn stops_at_the_first_failure() {
    let (_file, source) = image();
    let small = MemoryLun::new(16 << 20, 512, None);
    let error = write_whole_disk_image(
        &small,
        source.clone(),
        &WholeDisk::default(),
        &WriteOptions::default(),
    )
    .await
    .unwrap_err();
    assert_eq!(
        (error.kind(), &error.details()["room_bytes"]),
        (Kind::Limit, &(16 << 20).into())
    );
    let bad = MemoryLun::new(32 << 20, 512, Some(1000));
    let error = write_whole_disk_image(
        &bad,
        source.clone(),
        &WholeDisk::default(),
        &WriteOptions::default(),
    )
    .await
    .unwrap_err();
    assert_eq!(error.message(), "medium error");
    let lost = Guard(Arc::new(|| Err(Error::new(Kind::Conflict, "lease lost"))));
    let lun = MemoryLun::new(32 << 20, 512, None);
    let options = WriteOptions {
        guard: lost,
        ..WriteOptions::default()
    };
    assert!(
        write_whole_disk_image(&lun, source, &WholeDisk::default(), &options)
            .await
            .is_err()
    );
    assert!(
        lun.bytes.lock().unwrap().iter().all(|b| *b == 0xAA),
        "nothing was written"
    );
}

fn counted(lun: MemoryLun) -> (Arc<Mutex<u64>>, MemoryLun, WriteOptions) {
    let count = Arc::new(Mutex::new(0));
    let counting = count.clone();
    let guard = Guard(Arc::new(move || {
        *counting.lock().unwrap() += 1;
        Ok(())
    }));
    let options = WriteOptions {
        guard,
        ..WriteOptions::default()
    };
    (count, lun, options)
}

#[tokio::test]
async fn only_data_is_sent_where_zeros_are_cheap_or_known() {
    for (cheap, disk_is_zero) in [(true, false), (false, true)] {
        let (file, source) = image();
        let mut lun = MemoryLun::new(32 << 20, 512, None);
        lun.cheap = cheap;
        if disk_is_zero {
            lun.bytes.lock().unwrap().fill(0);
        }
        let (commands, lun, mut options) = counted(lun);
        options.disk_is_zero = disk_is_zero;
        let written = write_whole_disk_image(&lun, source, &WholeDisk::default(), &options)
            .await
            .unwrap();
        let image = std::fs::read(file.path()).unwrap();
        assert!(lun.bytes.lock().unwrap()[..image.len()] == image);
        // 700,000 bytes in granules of 64 KiB, and the last block.
        assert_eq!(written.data_bytes, 11 * 65_536 + 512);
        let zero_commands = if disk_is_zero { 0 } else { 2 };
        assert_eq!(*commands.lock().unwrap(), 2 + zero_commands);
    }
}

/// A disk may take its time to zero; here until the last byte of data.
#[tokio::test]
async fn data_does_not_wait_for_zeros() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(68 << 20).unwrap();
    let ones = vec![1; 4 << 20];
    for place in (0..68 << 20).step_by(16 << 20) {
        file.as_file().write_all_at(&ones, place).unwrap();
    }
    let source = Arc::new(ImageSource::open(file.path(), None).unwrap());
    let mut lun = MemoryLun::new(68 << 20, 512, None);
    (lun.cheap, lun.zeros_after) = (true, 20 << 20);
    let (whole, options) = (WholeDisk::default(), WriteOptions::default());
    let writing = write_whole_disk_image(&lun, source, &whole, &options);
    let written = tokio::time::timeout(Duration::from_secs(30), writing).await;
    let written = written.expect("data waits for zeros").unwrap();
    assert_eq!(
        (written.data_bytes, written.zero_bytes),
        (20 << 20, 48 << 20)
    );
    let image = std::fs::read(file.path()).unwrap();
    assert!(*lun.bytes.lock().unwrap() == image);
}

/// The disk writes its cache out while data comes, and at the end.
#[tokio::test]
async fn a_flush_goes_on_beside_the_data() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().write_all_at(&vec![1; 16 << 20], 0).unwrap();
    let source = Arc::new(ImageSource::open(file.path(), None).unwrap());
    let mut lun = MemoryLun::new(16 << 20, 512, None);
    lun.flushed_after = 12 << 20;
    let options = WriteOptions {
        flush_bytes: 4 << 20,
        ..WriteOptions::default()
    };
    let whole = WholeDisk::default();
    let writing = write_whole_disk_image(&lun, source, &whole, &options);
    let written = tokio::time::timeout(Duration::from_secs(30), writing).await;
    written.expect("data waits for the flush").unwrap();
    let flushes = lun.flushes.lock().unwrap();
    assert!(
        (12 << 20..16 << 20).contains(&flushes[0]) && flushes.last() == Some(&(16 << 20)),
        "{flushes:?}"
    );
}

#[tokio::test]
async fn a_resumed_write_keeps_what_is_there() {
    let (file, source) = image();
    let lun = MemoryLun::new(32 << 20, 512, None);
    let whole = WholeDisk::default();
    let options = WriteOptions {
        resume: true,
        ..WriteOptions::default()
    };
    write_whole_disk_image(&lun, source.clone(), &whole, &options)
        .await
        .unwrap();
    lun.bytes.lock().unwrap()[100] = 9;
    let again = write_whole_disk_image(&lun, source, &whole, &options)
        .await
        .unwrap();
    assert_eq!(again.data_bytes, PIECE_BYTES, "only the piece that differs");
    assert_eq!(again.resumed_bytes, (17 << 20) + 512);
    let image = std::fs::read(file.path()).unwrap();
    assert!(lun.bytes.lock().unwrap()[..image.len()] == image);
    verify(&lun, &again.manifest, &options).await.unwrap();
}

#[tokio::test]
async fn a_resumed_write_reads_beside_its_writes() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().write_all_at(&vec![1; 16 << 20], 0).unwrap();
    let source = Arc::new(ImageSource::open(file.path(), None).unwrap());
    let lun = MemoryLun::new(16 << 20, 512, None);
    let options = WriteOptions {
        resume: true,
        ..WriteOptions::default()
    };
    let whole = WholeDisk::default();
    let writing = write_whole_disk_image(&lun, source, &whole, &options);
    let written = tokio::time::timeout(Duration::from_secs(30), writing).await;
    let written = written.expect("a read waits for writes").unwrap();
    assert_eq!((written.resumed_bytes, written.data_bytes), (0, 16 << 20));
}

#[test]
fn overlays_meet_pieces() {
    let overlay = Overlay {
        offset: 1000,
        bytes: vec![1; 100],
    };
    assert_eq!(shared(0, 1000, &overlay), None);
    assert_eq!(shared(0, 1010, &overlay), Some((1000..1010, 0..10)));
    assert_eq!(shared(1050, 1000, &overlay), Some((0..50, 50..100)));
    assert_eq!(shared(1100, 1000, &overlay), None);
}

#[tokio::test]
async fn disks_share_one_reader_and_join_at_any_time() {
    let (file, source) = image();
    let image = std::fs::read(file.path()).unwrap();
    let luns: Vec<_> = (0..6)
        .map(|_| MemoryLun::new(32 << 20, 512, None))
        .collect();
    let options = WriteOptions::default();
    let writes = luns.iter().enumerate().map(|(index, lun)| {
        let (source, options) = (source.clone(), options.clone());
        async move {
            // Later ones find the reader in the middle of the image.
            for _ in 0..index * 3 {
                tokio::task::yield_now().await;
            }
            let whole = WholeDisk::default();
            let written = write_whole_disk_image(lun, source, &whole, &options).await?;
            verify(lun, &written.manifest, &options).await?;
            Ok::<_, Error>(written.manifest.clone())
        }
    });
    let manifests = futures_util::future::try_join_all(writes).await.unwrap();
    assert!(manifests.iter().all(|manifest| *manifest == manifests[0]));
    for lun in &luns {
        assert!(lun.bytes.lock().unwrap()[..image.len()] == image);
    }
}

#[tokio::test]
async fn a_disk_that_gives_up_does_not_stop_the_others() {
    let (_file, source) = image();
    let options = WriteOptions::default();
    let whole = WholeDisk::default();
    let (bad, good) = (
        MemoryLun::new(32 << 20, 512, Some(1000)),
        MemoryLun::new(32 << 20, 512, None),
    );
    let (failed, done) = tokio::join!(
        write_whole_disk_image(&bad, source.clone(), &whole, &options),
        write_whole_disk_image(&good, source.clone(), &whole, &options),
    );
    assert_eq!(failed.unwrap_err().message(), "medium error");
    verify(&good, &done.unwrap().manifest, &options)
        .await
        .unwrap();
}
