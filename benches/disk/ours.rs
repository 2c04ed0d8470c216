//! Our side: what a run of this program as competitor does.

use bytes::Bytes;
use flowrun::disk::{Feeds, Lun, WholeDisk, WriteOptions, write_whole_disk_image};
use flowrun::error::Result;
use flowrun::image::source::ImageSource;
use flowrun::iscsi::target::{BlockDevice, FileDisk, Target, TargetOptions};
use flowrun::iscsi::{LoginOptions, Session};
use futures_util::future::{BoxFuture, try_join_all};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAX_TRANSFER: usize = 256 << 10;

pub(crate) fn run(words: &[String]) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    match words[..] {
        ["write", image, port, iqn, luns] => {
            let luns = luns.parse().unwrap();
            runtime.block_on(write(Path::new(image), port, iqn, 1..=luns));
        }
        ["decode", image, disk] => runtime.block_on(decode(Path::new(image), Path::new(disk))),
        ["serve", kind] => runtime.block_on(serve(kind)),
        ["tcp", file, buffer] => runtime.block_on(tcp(Path::new(file), buffer.parse().unwrap())),
        _ => panic!("{words:?}"),
    }
}

/// The image onto every unit at once, as runs of one process do it: each on the workers.
async fn write(image: &Path, port: &str, iqn: &str, luns: impl Iterator<Item = u64>) {
    let login = |lun| {
        let portal = format!("127.0.0.1:{port}");
        let mut login = LoginOptions::new(portal, iqn, "iqn.2026-01.example:flowrun");
        login.lun = lun;
        login
    };
    let feeds = Feeds::default();
    let writes = luns.map(|lun| {
        let options = WriteOptions {
            feeds: feeds.clone(),
            ..WriteOptions::default()
        };
        tokio::spawn(write_one(image.to_owned(), login(lun), options))
    });
    for written in try_join_all(writes).await.unwrap() {
        written.unwrap();
    }
}

async fn write_one(image: PathBuf, login: LoginOptions, options: WriteOptions) -> Result<()> {
    let disk = Session::login(login).await?;
    let source = Arc::new(ImageSource::open(&image, None)?);
    write_whole_disk_image(&disk, source, &WholeDisk::default(), &options).await?;
    Ok(disk.logout().await?)
}

/// The image into a file.
async fn decode(image: &Path, path: &Path) {
    let source = Arc::new(ImageSource::open(image, None).unwrap());
    let disk = FileLun(FileDisk::open(path).unwrap());
    let options = WriteOptions::default();
    write_whole_disk_image(&disk, source, &WholeDisk::default(), &options)
        .await
        .unwrap();
}

/// A disk in this process.
struct FileLun(FileDisk);

impl Lun for FileLun {
    fn block_bytes(&self) -> u32 {
        self.0.block_bytes()
    }

    fn blocks(&self) -> u64 {
        self.0.blocks()
    }

    fn write(&self, lba: u64, data: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.0.write_at(lba, &data).unwrap();
            Ok(())
        })
    }

    fn read(&self, _: u64, _: u32) -> BoxFuture<'_, Result<Bytes>> {
        unreachable!("a write does not read")
    }

    fn write_zeroes(&self, lba: u64, blocks: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.0.zero(lba, blocks).unwrap();
            Ok(())
        })
    }

    fn zeroes_are_cheap(&self) -> bool {
        true
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// Our target, until it is killed; prints its port.
async fn serve(kind: &str) {
    let disk: Arc<dyn BlockDevice> = match kind.split_once(':').unwrap() {
        ("null", bytes) => Arc::new(Null(bytes.parse().unwrap())),
        ("file", path) => Arc::new(FileDisk::open(Path::new(path)).unwrap()),
        other => panic!("{other:?}"),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::start(TargetOptions::new(super::tgt::IQN, listener, disk)).unwrap();
    println!("{}", target.address().port());
    std::future::pending::<()>().await;
}

/// Swallows what is written.
struct Null(u64);

impl BlockDevice for Null {
    fn block_bytes(&self) -> u32 {
        512
    }

    fn blocks(&self) -> u64 {
        self.0 / 512
    }

    fn read_at(&self, _: u64, buffer: &mut [u8]) -> io::Result<()> {
        buffer.fill(0);
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn zero(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The physical limit: the file through one connection on loopback, read into the void.
/// `buffer` is that of the sockets; 0 leaves it to the kernel.
async fn tcp(path: &Path, buffer: u32) {
    let listener = tokio::net::TcpSocket::new_v4().unwrap();
    let sender = tokio::net::TcpSocket::new_v4().unwrap();
    if buffer > 0 {
        listener.set_recv_buffer_size(buffer).unwrap();
        sender.set_send_buffer_size(buffer).unwrap();
    }
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listener.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(sender.connect(address), listener.accept());
    let blocking = |stream: tokio::net::TcpStream| {
        let stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream
    };
    let (mut near, mut far) = (blocking(near.unwrap()), blocking(far.unwrap().0));
    let mut file = File::open(path).unwrap();
    let sending = std::thread::spawn(move || {
        let mut piece = vec![0; MAX_TRANSFER];
        loop {
            match file.read(&mut piece).unwrap() {
                0 => break,
                count => near.write_all(&piece[..count]).unwrap(),
            }
        }
    });
    let mut piece = vec![0; MAX_TRANSFER];
    while far.read(&mut piece).unwrap() > 0 {}
    sending.join().unwrap();
}
