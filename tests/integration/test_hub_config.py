"""What the example configuration lets users see of each other, without starting a hub."""

from __future__ import annotations

import os
import pwd
import re
import stat
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from traitlets.config import Config

from .hub_running import CONFIG


@pytest.fixture
def load(monkeypatch):
    """A function that executes the configuration as JupyterHub does, and gives its names; the umask is put back."""
    before = os.umask(0o022)

    def execute(**environment):
        for name in [name for name in os.environ if name.startswith("MSA3D_HUB_")]:
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(f"MSA3D_HUB_{name}", str(value))
        config = Config()
        names = {"get_config": lambda: config, "__name__": "jupyterhub_config"}
        exec(compile(CONFIG.read_text(), str(CONFIG), "exec"), names)
        return names

    yield execute
    os.umask(before)


def project(place: Path) -> Path:
    """A small repository to clone."""
    place.mkdir()
    (place / "notebook.ipynb").write_text("{}")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "x"]):
        subprocess.run(["git", "-C", str(place), *words], check=True)
    return place


@pytest.mark.parametrize("environment", [{}, {"TRY": "0"}, {"TRY": ""}])
def test_sessions_run_under_the_accounts_of_their_users(load, environment):
    c = load(**environment)["c"]
    assert c.JupyterHub.spawner_class == "localprocess"
    assert c.JupyterHub.authenticator_class == "pam"
    assert c.LocalAuthenticator.allowed_groups == {"msa3d"}
    assert "allow_all" not in c.Authenticator and "allow_all" not in c.LocalAuthenticator


def test_trying_it_out_is_for_this_machine_alone(load):
    c = load(TRY="1")["c"]
    assert (c.JupyterHub.authenticator_class, c.JupyterHub.spawner_class) == ("dummy", "simple")
    assert c.JupyterHub.bind_url.startswith("http://127.0.0.1:") and c.JupyterHub.hub_ip == "127.0.0.1"


@pytest.mark.parametrize(
    "name", ["alice/../bob", "alice bob", "alice\n", "..", "-alice", "alice;id", "a" * 33, "", "ä", "Alice"]
)
def test_names_of_users_are_compared_in_full(load, name):
    """As JupyterHub does it: by `match`, which looks at the beginning only."""
    assert re.compile(load()["c"].Authenticator.username_pattern).match(name) is None


@pytest.mark.parametrize("name", ["alice", "a", "bob-2_x", "0815", "a" * 32])
def test_plain_names_are_taken(load, name):
    assert re.compile(load()["c"].Authenticator.username_pattern).match(name)


@pytest.mark.parametrize("trial", ["", "1"])
def test_what_hub_and_sessions_write_is_their_owners_alone(load, trial):
    load(TRY=trial)
    assert os.umask(0o022) == 0o077


def test_tokens_are_asked_for_and_none_is_written_down(load):
    names = load()
    text = CONFIG.read_text()
    assert not re.search(r"^[^#\n]*(api_tokens|\.token|auth_token|cookie_secret|password)\s*[=\[]", text, flags=re.M)
    assert not [word for word in names["c"].Spawner.args if "token" in word.lower() or "password" in word.lower()]
    assert not [name for name in names["c"].Spawner.environment if re.search("TOKEN|SECRET|PASSWORD", name)]


def test_a_home_directory_is_closed_to_others(load, tmp_path):
    names = load(TRY="1", HOMES=tmp_path / "homes", PROJECT=project(tmp_path / "project"))
    open_before = tmp_path / "homes" / "bob"
    open_before.mkdir(parents=True, mode=0o755)
    for user in ("alice", "bob"):
        names["prepare_home"](SimpleNamespace(user=SimpleNamespace(name=user), home_dir=str(tmp_path / "homes" / user)))
        home = tmp_path / "homes" / user
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        clone = home / "msa3d"
        assert not [path for path in (clone, *clone.rglob("*")) if path.stat().st_mode & 0o077]


def test_a_link_is_no_home_directory(load, tmp_path):
    names = load(TRY="1", HOMES=tmp_path / "homes", PROJECT=project(tmp_path / "project"))
    (tmp_path / "other").mkdir()
    (tmp_path / "homes").mkdir()
    (tmp_path / "homes" / "alice").symlink_to(tmp_path / "other")
    with pytest.raises(RuntimeError, match="has to be a directory"):
        names["prepare_home"](SimpleNamespace(user=SimpleNamespace(name="alice")))
    assert list((tmp_path / "other").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run something under another account")
def test_one_user_cannot_read_the_files_of_another(load, monkeypatch, tmp_path):
    """With accounts, as a hub of root has them: the clone is the user's own, and closed to the other user."""
    names = None
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o755)
        repository = project(place / "project")
        uids = {"alice": 20001, "bob": 20002}
        entries = {
            name: SimpleNamespace(pw_uid=uid, pw_gid=uid, pw_dir=str(place / name)) for name, uid in uids.items()
        }
        monkeypatch.setattr(pwd, "getpwnam", entries.__getitem__)
        monkeypatch.setenv("CONFIGPROXY_AUTH_TOKEN", "the secret of the hub")
        names = load(PROJECT=repository)
        # What git has to be told once, by the operator, of a project that belongs to another account.
        told = place / "gitconfig"
        told.write_text(f"[safe]\n\tdirectory = {repository}\n\tdirectory = {repository}/.git\n")
        told.chmod(0o644)
        ran = []
        run = subprocess.run

        def watched(command, **options):
            ran.append(options)
            options["env"] = {**options["env"], "GIT_CONFIG_SYSTEM": str(told)}
            return run(command, **options)

        monkeypatch.setattr(subprocess, "run", watched)
        for name, uid in uids.items():
            (place / name).mkdir(mode=0o755)
            os.chown(place / name, uid, uid)
            names["prepare_home"](SimpleNamespace(user=SimpleNamespace(name=name)))
        monkeypatch.setattr(subprocess, "run", run)
        assert all("CONFIGPROXY_AUTH_TOKEN" not in options["env"] for options in ran)

        def reads(name, path):
            done = run(["cat", str(path)], user=uids[name], group=uids[name], extra_groups=[], capture_output=True)
            return done.returncode == 0

        notebook = place / "alice" / "msa3d" / "notebook.ipynb"
        assert notebook.stat().st_uid == uids["alice"]
        assert reads("alice", notebook)
        assert not reads("bob", notebook)
        assert not reads("alice", place / "bob" / "msa3d" / "notebook.ipynb")
