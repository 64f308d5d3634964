use snapshotter::*;
use std::path::Path;
use std::time::Instant;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let rt = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    rt.block_on(async {
        let s = Snapshotter::open(Config::new(&args[1])).await.unwrap();
        let start = Instant::now();
        match args[2].as_str() {
            "snap" => {
                let f = if args[5] == "v1" {
                    Format::V1
                } else {
                    Format::V2
                };
                let c: Compression = args[6].parse().unwrap();
                let r = s
                    .snapshot(
                        &SnapshotRequest::new("vm", &args[3], Path::new(&args[4]))
                            .format(f)
                            .compression(c),
                    )
                    .await
                    .unwrap();
                println!(
                    "{:?} stored {} {:?}",
                    start.elapsed(),
                    r.stored_bytes,
                    r.paged
                );
            }
            _ => {
                s.restore(&RestoreRequest::new(
                    args[3].parse().unwrap(),
                    Path::new(&args[4]),
                ))
                .await
                .unwrap();
                println!("restore {:?}", start.elapsed());
            }
        }
        let _ = s.close().await;
    });
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!(
        "{}",
        status.lines().find(|l| l.starts_with("VmHWM")).unwrap()
    );
}
