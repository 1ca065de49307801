"""stoa token: what it signs a gateway takes and other languages verify; what others sign it reads; why a token is refused;
revocation; and --token of every command."""
import base64
import hashlib
import hmac
import json
import pathlib
import re
import subprocess
import tempfile
import time

from cluster import Cluster, wait_until
from test_surface_cli import Stoa, ending
from wire import http_request

SECRET = "0123456789abcdef0123456789abcdef"
E1 = ("eyJhbGciOiJIUzI1NiJ9.eyJjaG4iOiJzb21lLXJvb20iLCJycGMiOlsicHVibGlzaE1lc3NhZ2UiXSwiYXR0Ijp7InVzZXJJZCI6InVzZXItMTIzIn0sImlhdCI6MTcwMDAwMDAwMCwi"
      "ZXhwIjo0MTAyNDQ0ODAwfQ.OzG3oBrGqeeZ1mfnc5a2Ussgdzp-RsUhzGu9y-j5Otw")
E2 = ('{"chn":"some-room","tags":["tag1"],"rpc":["publishMessage"],"att":{"userId":"user-123"},"iat":1700000000,"exp":4102444800}'
      ".fdCACwbQ-XaHB53gEYuvPcUx2RE4UFtqUGk6wsdmojY")


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def python_token(claims, secret=SECRET, **header):
    text = encoded(json.dumps({"alg": "HS256", "typ": "JWT", **header}).encode()) + "." + encoded(json.dumps(claims).encode())
    return text + "." + encoded(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())


class Desk:
    """A folder with keys and a configuration, and the command in it."""

    def __init__(self, bin_dir, folder, **environment):
        self.dir = pathlib.Path(folder)
        self.stoa = Stoa(bin_dir, cwd=folder, **environment)

    def write(self, name, text):
        (self.dir / name).write_text(text)
        return name

    def config(self, *keys, more="mode: token", rest=""):
        self.write("stoa.yaml", f"auth:\n  {more}\n  keys:\n" + "".join(f"    - {{ {key} }}\n" for key in keys) + rest)

    def openssl(self, *words, **more):
        return subprocess.run(["openssl", *words], cwd=self.dir, check=True, capture_output=True, **more).stdout

    def new(self, *words):
        return self.stoa.out("token", "new", *words).strip()

    def check(self, token, *words, status=0):
        """What --json says of a token, and the line on stderr."""
        ran = self.stoa("token", "check", "--json", *words, token, status=status)
        assert len(ran.stdout.splitlines()) == 1, ran.stdout
        return json.loads(ran.stdout), ran.stderr


def desk_test(test):
    def run(bin_dir):
        with tempfile.TemporaryDirectory(prefix="stoa-tokens-") as folder:
            test(Desk(bin_dir, folder))
    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


@desk_test
def test_help(desk):
    text = desk.stoa.out("token", "--help")
    assert text == desk.stoa.out("token", "new", "--help") == desk.stoa.out("token", "check", "--help")
    assert text.count("\n  stoa token") >= 2 and "examples:" in text, text
    for words in ((), ("fly",), ("new",), ("new", "--key", "a", "extra"), ("new", "--key", "a", "--expires", "soon"), ("new", "--key", "a", "--att", "x"),
                  ("new", "--key", "a", "--nbf", "tomorrow"), ("check", "a", "b"), ("check", "--public-key", "a", "--secret-file", "b"),
                  ("revoke",), ("revoke", "--jti", "a", "--sub", "b"), ("revoke", "--jti", "a", "--before", "1"), ("revoke", "--sub", "a", "--before", "x")):
        assert "--help" in desk.stoa("token", *words, status=2).stderr, words


@desk_test
def test_new_is_verified_by_python(desk):
    desk.write("secret", SECRET + "\n")
    desk.config('kid: "2026-11", alg: HS256, secret_file: secret')
    before = int(time.time())
    token = desk.new("--key", "upload:a,b", "--key", "c", "--prefix", "job:", "--can", "subscribe,call", "--rpc", "say,ban", "--id", "c-1", "--sub", "zürich",
                     "--jti", "t-1", "--tags", "red,big", "--att", '{"n": [1, null]}', "--expires", "15m", "--nbf", "-10s")
    header, claims, signature = token.split(".")
    assert hmac.compare_digest(decoded(signature), hmac.new(SECRET.encode(), f"{header}.{claims}".encode(), hashlib.sha256).digest())
    assert json.loads(decoded(header)) == {"alg": "HS256", "typ": "JWT", "kid": "2026-11"}
    claims = json.loads(decoded(claims))
    assert before <= claims["iat"] <= time.time() and claims["exp"] == claims.pop("iat") + 900, claims
    assert before - 11 <= claims.pop("nbf") <= time.time() - 9 and claims.pop("exp")
    assert claims == {"sub": "zürich", "jti": "t-1", "key": ["upload:a,b", "c"], "prefix": "job:", "can": ["subscribe", "call"], "rpc": ["say", "ban"],
                      "id": "c-1", "tags": ["red", "big"], "att": {"n": [1, None]}}, claims
    first, second = (json.loads(decoded(desk.new("--prefix", "").split(".")[1])) for _ in range(2))
    assert first["prefix"] == "" and len(first["jti"]) == 32 and first["jti"] != second["jti"] and first["exp"] - first["iat"] == 3600
    both = json.loads(desk.stoa.out("token", "new", "--json", "--key", "a"))
    assert json.loads(decoded(both["token"].split(".")[1])) == both["claims"]


@desk_test
def test_check_of_python_tokens(desk):
    desk.config(f'kid: old, alg: HS256, secret: "{SECRET}"', 'kid: new, alg: HS256, secret: "another secret of 32 or more bytes"')
    now = time.time()
    claims = {"exp": now + 1830.5, "key": ["a", "b"], "can": ["publish"], "rpc": ["say"]}
    for token in (python_token(claims), python_token(claims, kid="old"), python_token(claims, "another secret of 32 or more bytes", kid="new")):
        said, errors = desk.check(token)
        assert not errors and said["kind"] == "jwt" and said["signature"] == "good" and said["accepted"] and said["refused"] is None
        assert (said["keys"], said["rights"], said["rpc"], said["claims"]["exp"]) == (["a", "b"], ["publish"], ["say"], claims["exp"])
        assert 1790 < said["expires_in_s"] <= 1830
    for token, signature, why in ((python_token(claims, kid="new"), "wrong", "signature"), (python_token(claims, kid="newer"), "wrong", "kid"),
                                  (python_token(claims, "other"), "wrong", "signature"), (python_token(claims, alg="none"), "unchecked", "algorithm"),
                                  (python_token(claims, alg="RS256"), "wrong", "algorithm"),
                                  (python_token({**claims, "exp": now - 5}), "good", "expired"), (python_token({**claims, "nbf": now + 50}), "good", "not valid yet"),
                                  (python_token({"key": "a"}), "good", "exp"), (python_token({**claims, "can": ["fly"]}), "good", "can"),
                                  (python_token({**claims, "exp": now * 1000}), "good", "max_ttl"), (python_token(claims)[:-3], "wrong", "signature"),
                                  (python_token(claims, crit=["exp"]), "unchecked", "crit"), ("a.b", "unchecked", "JWT"), ("x" * 100000, "unchecked", "too long"),
                                  (python_token({**claims, "att": "x" * 9000}), "wrong", "too long")):
        said, errors = desk.check(token, status=1)
        assert (said["signature"], said["accepted"]) == (signature, False) and why in said["refused"] and why in errors, (token, said, errors)
        assert token not in errors
    text = desk.stoa.out("token", "check", python_token(claims))
    for word in ("signature: good", 'keys "a" "b"', 'publish, methods "say"', "30 min", "in force"):
        assert word in text, (word, text)


@desk_test
def test_the_python_of_the_page(desk):
    """docs/tokens.md shows how to make one without a library of ours."""
    page = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "tokens.md").read_text()
    desk.write("jwt.secret", SECRET + "\n")
    desk.config('kid: "2026-11", alg: HS256, secret_file: jwt.secret')
    names = {"open": lambda name: open(desk.dir / name)}
    exec(re.search(r"```python\n(.*?)```", page, re.S).group(1).replace("\ntoken(open(", "\nmade = token(open("), names)
    said, _ = desk.check(names["made"])
    assert said["accepted"] and said["keys"] == ["upload:abc123"], said


@desk_test
def test_where_a_token_comes_from(desk):
    desk.write("secret", SECRET)
    desk.write("stoa.yaml", "")
    token = desk.new("--secret-file", "secret", "--key", "k")
    desk.write("token", f"  {token}\n\n")
    words = ("token", "check", "--secret-file", "secret")
    wanted = desk.stoa.out(*words, token)
    assert wanted == desk.stoa.out(*words, "@token") == desk.stoa.out(*words, "-", input=token + "\n") == desk.stoa.out(*words, input=token)
    assert wanted == desk.stoa.out("--token", "@token", *words) == Stoa(desk.stoa.path[:-5], cwd=desk.dir, STOA_TOKEN=token).out(*words)
    said, errors = desk.check(token, status=1)
    assert said["signature"] == "unchecked" and not said["accepted"] and said["keys"] == ["k"] and "not checked" in errors
    assert "no key to sign with" in desk.stoa("token", "new", "--key", "k", status=1).stderr
    desk.write("empty", "\n")
    assert "empty" in desk.stoa("token", "new", "--key", "k", "--secret-file", "empty", status=1).stderr
    assert "none.txt" in desk.stoa("token", "new", "--key", "k", "--secret-file", "none.txt", status=1).stderr


@desk_test
def test_key_pairs(desk):
    """RS256 and ES256 with keys by openssl, as docs/tokens.md makes them; verified by openssl."""
    desk.openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "rs.pem")
    desk.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "es.pem")
    for name in ("rs", "es"):
        desk.openssl("pkey", "-in", f"{name}.pem", "-pubout", "-out", f"{name}.pub")
    desk.config("kid: r, alg: RS256, public_key_file: rs.pub", "kid: e, alg: ES256, public_key_file: es.pub")
    for name, kid, alg in (("rs", "r", "RS256"), ("es", "e", "ES256")):
        token = desk.new("--private-key", f"{name}.pem", "--alg", alg, "--kid", kid, "--key", "k")
        said, _ = desk.check(token)
        assert said["accepted"], said
        assert desk.check(token, "--public-key", f"{name}.pub")[0]["accepted"]
        head, signature = token.rsplit(".", 1)
        desk.write("head", head)
        signature = decoded(signature)
        if alg == "ES256": # two numbers, which openssl wants as DER
            numbers = [signature[:32].lstrip(b"\0") or b"\0", signature[32:].lstrip(b"\0") or b"\0"]
            numbers = b"".join(b"\2" + bytes([len(n)]) + n for n in (b"\0" + n if n[0] > 127 else n for n in numbers))
            signature = b"\x30" + bytes([len(numbers)]) + numbers
        (desk.dir / "signature").write_bytes(signature)
        assert b"OK" in desk.openssl("dgst", "-sha256", "-verify", f"{name}.pub", "-signature", "signature", "head")
        assert not desk.check(desk.new("--private-key", f"{name}.pem", "--alg", alg, "--kid", "x", "--key", "k"), status=1)[0]["accepted"]
    # what is public is no secret: the classic confusion of algorithms
    forged = python_token({"exp": time.time() + 60, "prefix": ""}, (desk.dir / "rs.pub").read_text(), kid="r")
    assert desk.check(forged, status=1)[0]["signature"] == "wrong"
    assert "public keys only" in desk.stoa("token", "new", "--key", "k", status=1).stderr
    assert "RS256" in desk.stoa("token", "new", "--key", "k", "--private-key", "rs.pem", status=2).stderr
    assert "P-256" in desk.stoa("token", "new", "--key", "k", "--private-key", "rs.pem", "--alg", "ES256", status=1).stderr
    assert "private key" in desk.stoa("token", "new", "--key", "k", "--private-key", "rs.pub", "--alg", "RS256", status=1).stderr
    desk.config("kid: r, alg: RS256, public_key_file: rs.pem") # a private key signs as well
    assert desk.check(desk.new("--key", "k"))[0]["accepted"]


@desk_test
def test_what_a_gateway_would_refuse_is_not_made(desk):
    desk.config(f'alg: HS256, secret: "{SECRET}"', more="mode: token\n  max_ttl: 1h\n  iss: me\n  aud: stoa")
    said, _ = desk.check(desk.new("--key", "k"))
    assert said["claims"]["iss"] == "me" and said["claims"]["aud"] == "stoa"
    for words, why in ((("--expires", "61m"), "max_ttl"), (("--can", "fly"), "can"), (("--tags", "1,2,3,4,5,6,7,8,9,10,11"), "tags"), (("--id", ""), "id"),
                       (("--key", "$x"), "key"), (("--att", json.dumps("x" * 9000)), "too long"), (("--kid", "x"), "kid x")):
        ran = desk.stoa("token", "new", "--key", "k", *words, status=1)
        assert why in ran.stderr and not ran.stdout, (words, ran.stderr)
    assert not desk.check(python_token({"exp": time.time() + 60, "key": "k", "iss": "you", "aud": "stoa"}), status=1)[0]["accepted"]


@desk_test
def test_orpc_tokens(desk):
    """Both kinds, with the key from each place where it may be."""
    desk.write("orpc", "secret-key\n")
    desk.write("stoa.yaml", "routes:\n  - { path: /a, key: '{chn}', dialect: orpc, signing_key: other }\n"
                            "  - { path: /b, key: '{chn}', dialect: orpc, signing_key_file: orpc }\n")
    plain = Desk(desk.stoa.path[:-5], desk.dir, STOA_CONFIG=desk.write("empty.yaml", ""))
    by_variable = Desk(desk.stoa.path[:-5], desk.dir, STOA_CONFIG="empty.yaml", STOA_ORPC_SIGNING_KEY="secret-key")
    for token, kind in ((E1, "orpc-e1"), (E2, "orpc-e2")):
        for said in (desk.check(token)[0], plain.check(token, "--signing-key-file", "orpc")[0], by_variable.check(token)[0]):
            assert (said["kind"], said["signature"], said["accepted"]) == (kind, "good", True), said
            assert said["keys"] == ["some-room"] and said["rpc"] == ["publishMessage"] and said["expires"] == "2100-01-01T00:00:00Z", said
        assert plain.check(token, status=1)[0]["signature"] == "unchecked"
        assert desk.check(token[:-4] + "AAAA", status=1)[0]["signature"] == "wrong"
        text = desk.stoa.out("token", "check", token)
        assert "oRPC" in text and 'channel "some-room"' in text and 'methods "publishMessage"' in text, text
    over = '{"chn":"r","iat":1,"exp":2}'
    over += "." + encoded(hmac.new(b"secret-key", over.encode(), hashlib.sha256).digest())
    said, errors = desk.check(over, status=1)
    assert said["signature"] == "good" and "expired" in errors


@desk_test
def test_config_check(desk):
    desk.write("bad.pem", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    desk.config('kid: a, alg: HS256, secret: "short secret"')
    ran = desk.stoa("config", "check")
    assert "stoa.yaml:4: auth.keys[0].secret" in ran.stderr and "32 bytes" in ran.stderr and "short secret" not in ran.stderr
    assert "short secret" not in desk.stoa("config", "show").stdout + desk.stoa("config", "show", "--json").stdout
    desk.config('kid: a, alg: RS256, public_key_file: bad.pem')
    assert "stoa.yaml:4: auth.keys[0].public_key: is no key" in desk.stoa("config", "check", status=1).stderr
    desk.openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", "weak.pem")
    desk.config('kid: a, alg: RS256, public_key_file: weak.pem')
    assert "2048" in desk.stoa("config", "check", status=1).stderr


def test_a_cluster_takes_them(bin_dir):
    """Every command with --token; a token that may less is refused; a revoked one too."""
    with tempfile.TemporaryDirectory(prefix="stoa-tokens-") as folder:
        desk = Desk(bin_dir, folder)
        desk.config(f'kid: "1", alg: HS256, secret: "{SECRET}"')
        with Cluster(bin_dir, extra=(desk.dir / "stoa.yaml").read_text()) as c:
            server = "http://%s:%d" % c.base
            desk.stoa = Stoa(bin_dir, cwd=folder, STOA_SERVER=server)
            everything = desk.new("--prefix", "", "--can", "subscribe,publish,send,call,manage")
            desk.write("admin", everything + "\n")
            one = desk.new("--key", "k", "--can", "subscribe,publish", "--jti", "one", "--sub", "ann")
            other = desk.new("--key", "k", "--jti", "two", "--sub", "bob")
            assert "Unauthorized" in desk.stoa("publish", "k", "1", status=1).stderr
            assert "Unauthorized" in desk.stoa("--token", "x.y.z", "publish", "k", "1", status=1).stderr
            desk.stoa.out("--token", one, "publish", "k", "1")
            assert "Forbidden" in desk.stoa("--token", one, "publish", "other", "1", status=1).stderr
            assert "Forbidden" in desk.stoa("--token", other, "publish", "k", "1", status=1).stderr
            as_one, as_admin = Stoa(bin_dir, cwd=folder, STOA_SERVER=server, STOA_TOKEN=one), Stoa(bin_dir, cwd=folder, STOA_SERVER=server, STOA_TOKEN="@admin")
            assert as_one.out("log", "--raw", "k") == "1\n"
            assert as_admin.out("keys") == "k\n"
            assert "Forbidden" in as_one("keys", status=1).stderr
            assert "Forbidden" in as_one("token", "revoke", "--jti", "one", status=1).stderr
            as_admin("status")
            with ending(as_one.background("tail", "-n", "all", "k")) as tail:
                assert tail.stdout.readline().endswith("\t1\n")
                assert as_admin.out("token", "revoke", "--jti", "one").strip()
                assert "Unauthorized" in wait_until("the tail is refused", lambda: tail.poll() is not None and tail.stderr.read(), 10)
                assert tail.returncode == 1
            assert "Unauthorized" in as_one("log", "k", status=1).stderr
            desk.stoa.out("--token", other, "log", "k")
            said = json.loads(as_admin.out("token", "revoke", "--json", "--sub", "bob", "--before", "+1m"))
            assert said["id"], said
            wait_until("bob's is refused", lambda: http_request(c.base, "GET", "/log?key=k", headers={"Authorization": f"Bearer {other}"})[0] == 401, 10)
            for process in c.all:
                log = process.log_path.read_text()
                assert not any(token.split(".")[2] in log for token in (one, other, everything)), process.name
