//! scratch
#![allow(missing_docs, clippy::print_stdout)]
use snapshotter::*;
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let a: Vec<String> = std::env::args().collect();
    let d = if std::env::var("BG").is_ok() {
        Durability::Background
    } else {
        Durability::Full
    };
    let s = Snapshotter::open(Config::new(&a[2]).durability(d))
        .await
        .unwrap();
    match a[1].as_str() {
        "snap" => {
            let r = s
                .snapshot(
                    &SnapshotRequest::new("x", &a[3], &a[4])
                        .file(File::new(".").read_only(a.get(5).is_some())),
                )
                .await
                .unwrap();
            println!("{:?} {:?}", r.duration, r.placements);
        }
        "restore" => {
            let r = s
                .restore(&RestoreRequest::new(
                    format!("x:{}", a[3]).parse().unwrap(),
                    &a[4],
                ))
                .await
                .unwrap();
            println!("{:?} {:?}", r.duration, r.placements);
        }
        "verify" => println!("{:?}", s.verify(&VerifyRequest::all()).await.unwrap()),
        "rm" => s
            .remove(&format!("x:{}", a[3]).parse().unwrap())
            .await
            .unwrap(),
        "ls" => {
            for x in s.list().await.unwrap() {
                println!("{x:?}")
            }
        }
        _ => panic!(),
    }
    let _ = std::mem::ManuallyDrop::new(0);
    s.close().await.unwrap();
}
