"""The one form of a study's configuration: what its text may be, its key, and what is refused."""

import hashlib

import pytest

import precode as pc
from precode import _precode

CANONICAL = (
    '{"clauses":[4,16],"densities":[0.25,0.1],"embeddings":["identity","random"],"epochs":25,"formulas":10,'
    '"hidden":[16,32],"methods":["imp","snip:shuffle-row"],"rules":"' + "0123456789abcdef" * 4 + '",'
    '"samples":20000,"seed":18446744073709551615,"version":1}'
)


def altered(old, new):
    assert old in CANONICAL
    return CANONICAL.replace(old, new)


def test_the_order_and_spelling_of_the_text_do_not_matter():
    assert _precode.study_config(CANONICAL)[0] == CANONICAL
    shuffled = altered("[4,16]", "[16, 4]").replace("[0.25,0.1]", "[1e-1, 0.250]")
    shuffled = shuffled.replace('["identity","random"]', '["random","identity"]')
    assert _precode.study_config(shuffled) == _precode.study_config(CANONICAL)
    combined, _ = _precode.study_config(altered("imp", "distance+motion"))
    assert '"methods":["distance+motion","snip:shuffle-row"]' in combined


def test_the_key_is_the_digest_of_the_text_and_changes_with_every_value():
    key = _precode.study_config(CANONICAL)[1]
    # printf '%s' '<canonical form>' | sha256sum
    assert key == "f91fae35b04384ac21c2ab11f10cb141521df888327072536f6fb8274bd4f9b1"
    assert key == hashlib.sha256(CANONICAL.encode()).hexdigest()
    changes = [
        ("[4,16]", "[4,17]"),
        ("0.25", "0.26"),
        (',"random"', ""),
        (":25,", ":26,"),
        (":10,", ":11,"),
        ("[16,32]", "[16]"),
        (":shuffle-row", ""),
        ('rules":"0', 'rules":"1'),
        ("20000", "20001"),
        ("615,", "614,"),
    ]
    assert key not in [_precode.study_config(altered(old, new))[1] for old, new in changes]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"seed"', '"sed"', "unknown field `sed`, expected one of `clauses`"),
        ('"seed":18446744073709551615,', "", "missing field `seed`"),
        ('"seed"', '"epochs":1,"seed"', "duplicate field `epochs`"),
        ("[16,32]", '[16,"wide"]', 'hidden[1]: invalid type: string "wide"'),
        ("[16,32]", "[16,0]", "hidden contains 0: each must be from 1 to 65536"),
        ("[16,32]", "[]", "hidden = []: give at least one, from 1 to 65536"),
        ("[4,16]", "[4,4]", "clauses = [4, 4]: 4 stands twice"),
        ("0.25", "1.5", "densities contains 1.5: each must be above 0 and at most 1"),
        ('"random"', '"fourier"', "embeddings contains fourier: each must be one of identity, hadamard"),
        ("imp", "imp:a:b", "methods contains imp:a:b"),
        (":10,", ":0,", "formulas = 0: must be from 1 to 1048576"),
        (":25,", ":-1,", "epochs: invalid value: integer `-1`"),
        ("20000", "0", "samples = 0"),
        ('0123456789abcdef"', '"', "64 digits"),
        ('"version":1', '"version":2', "version = 2: this precode reads version 1"),
        ("1}", "1}}", "trailing characters"),
        ("{", "", "study configuration: "),
    ],
)
def test_what_is_refused_is_named_with_what_is_allowed(old, new, expected):
    with pytest.raises(pc.PrecodeValueError) as refused:
        _precode.study_config(altered(old, new))
    assert expected in str(refused.value)
