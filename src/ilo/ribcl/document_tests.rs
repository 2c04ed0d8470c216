use super::super::http;
use super::*;
use proptest::prelude::*;

#[test]
fn an_http_answer_is_complete_only_at_its_end() {
    let bytes = include_bytes!("../../../tests/data/ilo/ribcl/ilo3-raw-http/get_vm_status.raw");
    assert!(http::is_complete(bytes));
    let whole = http::read(bytes).unwrap();
    for cut in 0..bytes.len() - 8 {
        assert!(!http::is_complete(&bytes[..cut]), "{cut}");
    }
    // The last chunk may be missing.
    assert_eq!(http::read(&bytes[..bytes.len() - 5]).unwrap(), whole);
}

#[test]
fn what_firmware_breaks_is_read() {
    let broken = b"<?xml version=\"1.0\"?>\r\n<RIBCL VERSION=\"2.22\"/>\n<RESPONSE\n STATUS = \
        \"0x0001\"\n MESSAGE='Error: \x01near \"GET_X\".'\n /></RIBCL>\nmore <INFORM>t</INFORM>";
    let answer = Answer::parse(broken).unwrap();
    assert_eq!(
        (answer.status, answer.message.as_str()),
        (1, "Error: near \"GET_X\".")
    );
    let kept = b"<RIBCL><RESPONSE STATUS='0x0000' MESSAGE='No error'/><A><![CDATA[ a<b ]]></A>";
    let answer = Answer::parse(kept).unwrap();
    assert_eq!(answer.element("A").unwrap().text, "a<b");
    let nested = b"<RIBCL><RESPONSE STATUS=\"0x0001\" MESSAGE=\"syntax error near \"GET_X\".\" />";
    let answer = Answer::parse(nested).unwrap();
    assert_eq!(answer.message, "syntax error near \"GET_X\".");
    assert_eq!(
        Answer::parse(b"<html>no</html>").unwrap_err().kind(),
        Kind::Protocol
    );
}

/// What would take hours, or all memory, if a byte were passed over as often as there are others.
#[test]
fn a_hostile_answer_is_read_in_a_moment() {
    let pieces = [
        "<",
        "<a ",
        "<a/>",
        "</a>",
        "<a><b>",
        "<a b=\"",
        "<a b='>",
        "a=\"\" ",
        "\"",
        "'",
        "=",
        "<!--",
        "<![CDATA[",
        "<?xml",
        "<?x?>",
        "<a b=\"x\" \"c",
        "&amp;",
        "\u{1}",
        " ",
        ">",
        "/>",
    ];
    for (piece, root) in pieces.iter().flat_map(|p| [(p, ""), (p, "<a b=\"")]) {
        let hostile = format!("{root}{}", piece.repeat((128 << 10) / piece.len()));
        match scan(hostile.as_bytes()) {
            Ok(elements) => assert!(elements.len() <= MAX_ELEMENTS, "{piece}"),
            Err(error) => assert_eq!(error.kind(), Kind::Limit, "{piece}"),
        }
    }
    let name = "n".repeat(MAX_NAME);
    let deep = format!("<{name}>").repeat(MAX_DEPTH - 1) + &"<a/>".repeat(MAX_ELEMENTS);
    assert_eq!(scan(deep.as_bytes()).unwrap_err().kind(), Kind::Limit);
}

#[test]
fn headers_that_never_end_are_no_http() {
    let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
    answer.resize(http::MAX_HEAD_BYTES, b'x');
    assert!(!http::is_complete(&answer));
    answer.extend(b"yz\r\n\r\nbody");
    assert!(http::is_complete(&answer));
    assert_eq!(http::read(&answer).unwrap_err().kind(), Kind::Protocol);
}

proptest! {
    #[test]
    fn what_chunks_hold_is_not_more_than_came(
        chunks in proptest::collection::vec(("[0-9a-fA-F]{0,17}(;x)?", "[ -~]{0,20}"), 0..8),
    ) {
        let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for (size, data) in &chunks {
            answer.extend(format!("{size}\r\n{data}\r\n").as_bytes());
        }
        let (_, body) = http::read(&answer).unwrap();
        prop_assert!(body.len() < answer.len());
    }

    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        drop(Answer::parse(&bytes));
        drop(http::read(&bytes));
        http::is_complete(&bytes);
    }

    #[test]
    fn never_panics_on_markup(text in "[<>/='\"a? x0&;!é\n-]{0,300}") {
        drop(Answer::parse(text.as_bytes()));
    }
}
