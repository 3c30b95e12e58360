"""Config: what it takes, what it refuses and how it says so, and kcptun's files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kcpsocket import Config
from kcpsocket.config import CRYPTS, MODES


def test_defaults_suit_a_socket() -> None:
    config = Config()
    assert (config.crypt, config.key, config.mode) == ("null", None, "fast2")
    assert (config.nodelay, config.interval, config.resend, config.nc) == (True, 20, 2, True)
    assert (config.mtu, config.sndwnd, config.rcvwnd) == (1400, 1024, 1024)
    assert (config.datashard, config.parityshard) == (0, 0)
    assert (config.keepalive, config.keepidle, config.keepintvl, config.keepcnt) == (True, 10, 5, 3)
    assert (config.user_timeout, config.connect_timeout) == (30, 127)
    assert config.mss == 1376


@pytest.mark.parametrize("mode", MODES)
def test_modes_are_kcptuns(mode: str) -> None:
    config = Config(mode=mode)
    assert (config.nodelay, config.interval, config.resend, config.nc) == MODES[mode]


def test_single_settings_go_before_the_mode() -> None:
    config = Config(mode="fast3", interval=15, nc=False)
    assert (config.nodelay, config.interval, config.resend, config.nc) == (True, 15, 2, False)


def test_key_chooses_the_cipher() -> None:
    assert Config(key="secret").crypt == "aes-128-gcm"
    assert Config(key="secret", crypt="aes").crypt == "aes"


def test_key_is_never_left_unused_by_mistake() -> None:
    with pytest.raises(ValueError, match="key: given with crypt 'null'"):
        dataclasses.replace(Config(), key="secret")


def test_keepalive_takes_kcptuns_seconds() -> None:
    config = Config(keepalive=3)
    assert (config.keepalive, config.keepidle) == (True, 3)
    assert Config(keepalive=0).keepalive is False
    assert Config(keepalive=False).keepidle == 10


def test_config_is_a_value() -> None:
    assert Config(mtu=1000) == Config(mtu=1000)
    assert len({Config(), Config(), Config(mtu=1000)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().mtu = 1000  # type: ignore[misc]
    assert dataclasses.replace(Config(mtu=1000), sndwnd=5) == Config(mtu=1000, sndwnd=5)


@pytest.mark.parametrize(
    ("setting", "value", "allowed"),
    [
        ("crypt", "rot13", "null, none, aes"),
        ("key", 5, "str .* or bytes"),
        ("mode", "slow", "normal, fast, fast2, fast3"),
        ("nodelay", 2, "True or False"),
        ("nc", "yes", "True or False"),
        ("acknodelay", None, "True or False"),
        ("interval", 0, "1 to 5000 ms"),
        ("interval", 20.5, "1 to 5000 ms"),
        ("resend", -1, "0 to 32768 packets"),
        ("mtu", 127, "128 to 1500 bytes"),
        ("mtu", 1501, "128 to 1500 bytes"),
        ("mtu", "1400", "128 to 1500 bytes"),
        ("mtu", True, "128 to 1500 bytes"),
        ("sndwnd", 0, "1 to 32768 packets"),
        ("rcvwnd", 32769, "1 to 32768 packets"),
        ("datashard", 255, "0 to 254 packets"),
        ("parityshard", -1, "0 to 254 packets"),
        ("dscp", 64, "0 to 63"),
        ("sockbuf", -1, "0 to"),
        ("keepalive", -1, "0 to .* seconds"),
        ("keepidle", 0, "0.001 to .* seconds"),
        ("keepintvl", "5", "0 to .* seconds"),
        ("keepcnt", 128, "1 to 127 probes"),
        ("connect_timeout", 0, "0.001 to .* seconds"),
        ("user_timeout", float("nan"), "0 to .* seconds"),
        ("user_timeout", float("inf"), "0 to .* seconds"),
        ("dead_link", 0, "1 to .* transmissions"),
        ("conv", 2**32, "0 to 4294967295"),
    ],
)
def test_bad_setting_is_named_with_what_was_given_and_what_is_allowed(setting: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"^{setting}: .*allowed: {allowed}") as caught:
        Config(**{setting: value})
    assert repr(value) in str(caught.value) or setting == "key"


@pytest.mark.parametrize(("data", "parity"), [(10, 0), (0, 3), (200, 56)])
def test_bad_fec_groups(data: int, parity: int) -> None:
    with pytest.raises(ValueError, match=f"datashard, parityshard: {data}, {parity} given, allowed: "):
        Config(datashard=data, parityshard=parity)


@pytest.mark.parametrize("crypt", sorted(CRYPTS))
def test_overhead_counts_every_header(crypt: str) -> None:
    config = Config(crypt=crypt, key=None if crypt == "null" else "secret", datashard=10, parityshard=3)
    assert config.overhead == CRYPTS[crypt] + 8 + 24
    assert config.mss == 1400 - config.overhead


# --- kcptun's files ---


def from_file(tmp_path: Path, **settings: Any) -> Config:
    path = tmp_path / "kcptun.json"
    path.write_text(json.dumps(settings))
    return Config.from_file(path)


def test_kcptuns_file_means_what_it_means_to_kcptun(tmp_path: Path) -> None:
    config = from_file(
        tmp_path,
        localaddr=":12948",
        remoteaddr="vps:29900",
        key="it's a secrect",
        crypt="aes",
        mode="fast3",
        conn=1,
        autoexpire=0,
        mtu=1350,
        sndwnd=512,
        rcvwnd=2048,
        datashard=10,
        parityshard=3,
        dscp=46,
        nocomp=True,
        acknodelay=False,
        nodelay=1,
        interval=50,
        resend=0,
        nc=0,
        sockbuf=4194304,
        smuxver=1,
        smuxbuf=4194304,
        streambuf=2097152,
        keepalive=7,
        log="",
        snmplog="",
        snmpperiod=60,
        quiet=False,
        tcp=False,
    )
    assert config == Config(
        crypt="aes",
        key="it's a secrect",
        mode="fast3",
        mtu=1350,
        sndwnd=512,
        rcvwnd=2048,
        datashard=10,
        parityshard=3,
        dscp=46,
        keepalive=7,
    )


def test_manual_mode_takes_the_four_settings(tmp_path: Path) -> None:
    config = from_file(tmp_path, mode="manual", nodelay=1, interval=25, resend=3)
    assert (config.nodelay, config.interval, config.resend, config.nc) == (True, 25, 3, False)


def test_no_mode_is_kcptuns_own(tmp_path: Path) -> None:
    assert from_file(tmp_path).mode == "fast"


def test_key_beside_the_null_cipher_is_passed_over(tmp_path: Path) -> None:
    assert from_file(tmp_path, crypt="null", key="unused").key is None


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"'])
def test_file_that_is_no_json_object(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"bad\.json: "):
        Config.from_file(path)


def test_bad_settings_in_a_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^mtuu: not a setting; allowed: .*mtu"):
        from_file(tmp_path, mtuu=1400)
    with pytest.raises(ValueError, match="^mtu: 9000 given, allowed: 128 to 1500 bytes"):
        from_file(tmp_path, mtu=9000)
    with pytest.raises(ValueError, match="^acknodelay: 'no' given, allowed: True or False"):
        from_file(tmp_path, acknodelay="no")
    with pytest.raises(FileNotFoundError):
        Config.from_file(tmp_path / "missing.json")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(
    st.dictionaries(
        st.sampled_from([field.name for field in dataclasses.fields(Config)]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.just(20)),
        max_size=4,
    )
)
def test_anything_is_either_taken_or_refused_with_a_name(given: dict[str, Any]) -> None:
    try:
        config = Config(**given)
    except ValueError as error:
        assert str(error).partition(":")[0].partition(",")[0] in Config.__dataclass_fields__
    else:
        assert 128 <= config.mtu <= 1500
