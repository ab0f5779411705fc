use proptest::prelude::*;

use super::*;

fn floats(name: &str, shape: &[usize], values: &[f32]) -> NamedTensor {
    let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    NamedTensor { name: name.into(), dtype: Dtype::F32, shape: shape.to_vec(), data }
}

fn mask(name: &str, shape: &[usize], kept: &[u8]) -> NamedTensor {
    NamedTensor { name: name.into(), dtype: Dtype::BOOL, shape: shape.to_vec(), data: kept.to_vec() }
}

fn ticket() -> Vec<NamedTensor> {
    vec![
        mask("mask.0.weight", &[2, 3], &[1, 0, 0, 1, 1, 0]),
        floats("start.0.bias", &[2], &[0.5, -0.25]),
        floats("start.0.weight", &[2, 3], &[1.5, 0.0, -0.0, 1e-40, -2.0, 0.0]),
        NamedTensor {
            name: "start.scale".into(),
            dtype: Dtype::F64,
            shape: vec![],
            data: 1f64.to_le_bytes().into(),
        },
    ]
}

fn about() -> About {
    let mut about: About = serde_json::from_str(ABOUT).unwrap();
    about.config.insert("lr".into(), serde_json::json!(0.1 + 0.2));
    about
}

const ABOUT: &str = r#"{"method": "snip", "settings": {}, "density": 0.5, "granularity": "weight", "scope": "global",
    "cost": {"gradients": 1.0}, "versions": {"precode": "0.1.0"}, "config": {"seed": 18446744073709551615}}"#;

fn bytes() -> Vec<u8> {
    encode(&ticket(), about()).unwrap()
}

/// A file with its header (as text) replaced.
fn with_header(bytes: &[u8], edit: impl Fn(&str) -> String) -> Vec<u8> {
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = edit(std::str::from_utf8(&bytes[8..8 + size]).unwrap());
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes[8 + size..]].concat()
}

fn refusal(tensors: &[NamedTensor]) -> String {
    encode(tensors, about()).unwrap_err()
}

#[test]
fn a_ticket_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ticket.safetensors");
    let mut tensors = ticket();
    save(&path, &tensors, ABOUT).unwrap();
    let (read, manifest) = load(&path).unwrap();
    assert_eq!(read, tensors);
    assert_eq!(manifest.counts, Count { kept: 3, total: 6 });
    assert_eq!(manifest.tensors["0.weight"], manifest.counts);
    assert_eq!(manifest.about, serde_json::from_str::<About>(ABOUT).unwrap());
    // The order in which tensors are given does not matter, and the same ticket is the same bytes.
    tensors.reverse();
    assert_eq!(encode(&tensors, about()).unwrap(), bytes());
}

#[test]
fn trained_values_belong_to_all_parameters() {
    let mut tensors = ticket();
    for start in ticket().into_iter().filter(|tensor| tensor.name.starts_with("start.")) {
        tensors.push(NamedTensor { name: start.name.replace("start.", "final."), ..start });
    }
    assert_eq!(decode(&encode(&tensors, about()).unwrap()).unwrap().0.len(), 7);
    tensors.pop();
    assert!(refusal(&tensors).contains("no tensor 'final.scale'"));
}

#[test]
fn every_type_is_checked_for_zeros_and_finite_values() {
    let cases: [(Dtype, &[u8], &[u8]); 4] = [
        (Dtype::F16, &0x3c00u16.to_le_bytes(), &0x7c00u16.to_le_bytes()),
        (Dtype::BF16, &0x3f80u16.to_le_bytes(), &0xff80u16.to_le_bytes()),
        (Dtype::F32, &1f32.to_le_bytes(), &f32::NAN.to_le_bytes()),
        (Dtype::F64, &f64::MIN_POSITIVE.to_le_bytes(), &f64::INFINITY.to_le_bytes()),
    ];
    for (dtype, one, infinite) in cases {
        let with = |value: &[u8], kept| {
            let start = NamedTensor { name: "start.w".into(), dtype, shape: vec![1], data: value.to_vec() };
            let beside = [mask("mask.v", &[1], &[1]), floats("start.v", &[1], &[1.0])];
            encode(&[&[start, mask("mask.w", &[1], &[kept])], beside.as_slice()].concat(), about())
        };
        assert!(with(one, 1).is_ok());
        assert!(with(one, 0).unwrap_err().contains("not zero at flat index 0"));
        assert!(with(infinite, 1).unwrap_err().contains("not finite at flat index 0"));
        let mut negative_zero = vec![0; one.len()];
        negative_zero[one.len() - 1] = 0x80;
        assert!(with(&negative_zero, 0).is_ok());
    }
}

#[test]
fn tensors_that_make_no_ticket_are_refused() {
    let with = |tensor: NamedTensor| refusal(&[ticket(), vec![tensor]].concat());
    assert!(with(floats("scale", &[], &[1.0])).contains("'scale' belongs to no ticket"));
    assert!(with(floats("final.other", &[], &[1.0])).contains("'final.other' belongs to no ticket"));
    assert!(with(mask("mask.other", &[1], &[1])).contains("no tensor 'start.other'"));
    assert!(with(mask("mask.0.bias", &[3], &[1, 1, 1])).contains("[2], but 'mask.0.bias' [3]"));
    assert!(with(mask("mask.0.bias", &[2], &[1, 2])).contains("the byte 2"));
    assert!(with(floats("mask.0.bias", &[2], &[1.0, 0.0])).contains("masks are BOOL"));
    assert!(with(mask("start.other", &[1], &[1])).contains("values are F16"));
    assert!(with(floats("start.0.bias", &[1], &[1.0])).contains("two tensors are named"));
    assert!(refusal(&ticket()[1..]).contains("there is no mask"));
    assert!(encode(&ticket(), About { density: 0.0, ..about() }).unwrap_err().contains("in (0, 1]"));
    assert!(encode(&ticket(), About { scope: "all".into(), ..about() }).unwrap_err().contains("scope 'all'"));
}

#[test]
fn headers_that_lie_are_refused() {
    let good = bytes();
    let refuse = |from: &str, to: &str| {
        let edited = with_header(&good, |header| {
            assert!(header.contains(from), "{header}");
            header.replace(from, to)
        });
        decode(&edited).unwrap_err()
    };
    assert!(refuse(r#"\"method\":\"snip\","#, "").contains("missing field `method`"));
    assert!(refuse(r#"\"method\""#, r#"\"extra\":1,\"method\""#).contains("unknown field `extra`"));
    assert!(refuse(r#"\"snip\""#, r#"\"imp\""#).contains("SHA-256"));
    assert!(refuse(r#"\"format\":1"#, r#"\"format\":2,\"new\":0"#).contains("format version 2"));
    assert!(refuse(r#"\"kind\":\"ticket\""#, r#"\"kind\":\"study\""#).contains("a 'study'"));
    assert!(refuse(r#"\"kept\":3"#, r#"\"kept\":4"#).contains("counts other weights"));
    assert!(refuse(r#""precode""#, r#""other""#).contains("it is no ticket"));
    assert!(refuse("start.0.bias", "start.1.bias").contains("SHA-256"));
    // More than any memory; a size that overflows; another type of the same size.
    assert!(refuse("[2,3]", "[2,3000000000000]").contains("no valid safetensors file"));
    assert!(refuse("[2,3]", "[18446744073709551615,3]").contains("no valid safetensors file"));
    assert!(refuse(r#""F64""#, r#""I64""#).contains("has type I64"));
    for header in [u64::MAX, 1 << 40, 0] {
        let edited = [&header.to_le_bytes(), &good[8..]].concat();
        assert!(decode(&edited).unwrap_err().contains("no valid safetensors file"));
    }
    // Nested too deeply for a recursive reader.
    let deep = format!(r#"{{"__metadata__":{{"precode":"{}"}}}}"#, "[".repeat(200_000));
    assert!(decode(&with_header(&good, |_| deep.clone())).is_err());
}

#[test]
fn shapes_that_no_tensor_has_are_refused() {
    let empty = |shape: &[usize]| vec![mask("mask.v", shape, &[]), floats("start.v", shape, &[])];
    let with = |shape: &[usize]| encode(&[ticket(), empty(shape)].concat(), about());
    assert!(with(&[0, 3, 1 << 40]).is_ok());
    assert!(with(&[[1; 63].as_slice(), &[0]].concat()).is_ok());
    assert!(with(&[[1; 64].as_slice(), &[0]].concat()).unwrap_err().contains("65 axes"));
    for shape in [[1 << 63, 0, 1], [0, usize::MAX, 1], [1 << 62, 0, 4], [1 << 30, 0, 1 << 30]] {
        assert!(with(&shape).unwrap_err().contains("which no tensor can have"), "{shape:?}");
    }
}

#[test]
fn masks_that_keep_nothing_are_no_ticket() {
    let tensors = [mask("mask.w", &[2], &[0, 0]), floats("start.w", &[2], &[0.0, 0.0])];
    assert!(refusal(&tensors).contains("keep no weight"));
}

#[test]
fn a_file_is_looked_at_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.safetensors");
    let good = bytes();
    let header = 2u64.to_le_bytes();
    for start in [&[][..], &[255; 8], &good, &[header.as_slice(), b"{}"].concat()] {
        // A hole of 4 TiB, which takes no room on the disk and would take more memory than there is.
        std::fs::write(&path, start).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(1 << 42).unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("no valid safetensors file") && !error.contains("memory"), "{error}");
    }
}

#[test]
fn the_message_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("half.safetensors");
    std::fs::write(&path, &bytes()[..100]).unwrap();
    let error = load(&path).unwrap_err();
    assert!(
        matches!(&error, Error::File(why) if why.contains("half.safetensors") && why.contains("another copy"))
    );
    let error = save(&path, &ticket()[1..], ABOUT).unwrap_err();
    assert!(matches!(&error, Error::Value(why) if why.contains("half.safetensors")));
}

proptest! {
    #![proptest_config(crate::examples(512))]

    #[test]
    fn no_bytes_are_read_wrongly(random in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&random).is_err());
        let size = (random.len() as u64).to_le_bytes();
        prop_assert!(decode(&[size.as_slice(), &random].concat()).is_err());
    }

    #[test]
    fn no_part_of_a_file_is_read(cut in any::<prop::sample::Index>(), tail in prop::collection::vec(any::<u8>(), 1..9)) {
        let good = bytes();
        prop_assert!(decode(&good[..cut.index(good.len())]).is_err());
        prop_assert!(decode(&[good, tail].concat()).is_err());
    }

    #[test]
    fn an_altered_file_is_refused(places in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4)) {
        let good = bytes();
        let mut altered = good.clone();
        for (place, flip) in places {
            altered[place.index(good.len())] ^= flip;
        }
        // White space in the header carries nothing.
        if let Ok(read) = decode(&altered) {
            prop_assert_eq!(read, decode(&good).unwrap());
        }
    }

    #[test]
    fn an_edited_header_is_refused(
        at in any::<prop::sample::Index>(), cut in 0usize..40, insert in "[\\[\\]{}\":,0-9a-z\\\\. -]{0,20}",
    ) {
        let good = bytes();
        let edited = with_header(&good, |header| {
            let start = at.index(header.len());
            let end = (start + cut).min(header.len());
            format!("{}{insert}{}", &header[..start], &header[end..])
        });
        if let Ok(read) = decode(&edited) {
            prop_assert_eq!(read, decode(&good).unwrap());
        }
    }
}
