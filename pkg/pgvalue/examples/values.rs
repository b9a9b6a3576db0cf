//! What the text of a value costs, by type, on one core.
//!
//! `cargo run --release -p pgvalue --example values`

use pgvalue::{Malformed, Scalar, Type};
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: u32 = 2_000_000;

fn main() -> Result<(), Malformed> {
    let array = [1, 0, 23, 3, 1].map(i32::to_be_bytes).concat();
    let elements: Vec<u8> = (1i32..4).flat_map(|n| [4, n].map(i32::to_be_bytes).concat()).collect();
    let values: [(&str, Type, Vec<u8>); 10] = [
        ("int4", Type::Scalar(Scalar::Int4), 1_234_567i32.to_be_bytes().to_vec()),
        ("int8", Type::Scalar(Scalar::Int8), 1_234_567_890_123i64.to_be_bytes().to_vec()),
        ("float8", Type::Scalar(Scalar::Float8), 1234.5f64.to_be_bytes().to_vec()),
        ("numeric", Type::Scalar(Scalar::Numeric), vec![0, 2, 0, 0, 0, 0, 0, 2, 0x04, 0xd2, 0x15, 0xe0]),
        ("date", Type::Scalar(Scalar::Date), 9573i32.to_be_bytes().to_vec()),
        ("timestamptz", Type::Scalar(Scalar::TimestampTz), 827_089_501_000_042i64.to_be_bytes().to_vec()),
        ("uuid", Type::Scalar(Scalar::Uuid), (0..16).collect()),
        ("interval", Type::Scalar(Scalar::Interval), vec![1; 16]),
        ("bytea of 100", Type::Scalar(Scalar::Bytea), vec![7; 100]),
        ("int4[3]", Type::Array(Scalar::Int4), [array, elements].concat()),
    ];
    let mut out = Vec::with_capacity(1 << 10);
    for (name, value_type, binary) in &values {
        let begin = Instant::now();
        for _ in 0..ROUNDS {
            out.clear();
            value_type.write_text(black_box(binary), &mut out)?;
            black_box(&out);
        }
        let nanos = begin.elapsed().as_nanos() / u128::from(ROUNDS);
        println!(
            "{name:>12} {nanos:>4} ns  {}",
            String::from_utf8_lossy(&out).get(..40).unwrap_or(&String::from_utf8_lossy(&out))
        );
    }
    Ok(())
}
