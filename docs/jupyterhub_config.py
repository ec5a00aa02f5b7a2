"""A JupyterHub whose users reduce slit-stepping observations: an example to start from.

    pip install jupyterhub; npm install -g configurable-http-proxy    # the hub; users have it in requirements.lock
    jupyterhub -f docs/jupyterhub_config.py

As it stands it is for one machine: root starts the hub, every user has an account of the machine and a home directory
that nobody else can read, and every session runs under its user's account. What is marked with (*) depends on the
machine. docs/jupyterhub.md, the page for operators, says how much memory, how many cores and how much disk a user
needs.

    MSA3D_HUB_TRY=1 jupyterhub -f docs/jupyterhub_config.py

is for trying it out alone, without root: anybody on this machine gets in with any password, and all sessions run under
one account, so that each can read the files and tokens of the others. tests/integration/test_hub.py does that, logs in,
and runs the notebooks.
"""

import os
import pwd
import subprocess
from pathlib import Path

c = get_config()  # noqa: F821 (JupyterHub puts it there)

# What the hub and the sessions write can be read by its owner alone: the hub's secrets, and the files of a user.
os.umask(0o077)

# For trying it out, on this machine only.
TRY = os.environ.get("MSA3D_HUB_TRY") == "1"

# --- Where things are. Each may be said in an environment variable of the hub instead of here.

# The environment of requirements.lock (in the image: /opt/msa3d), with msa3d in it.
ENVIRONMENT = Path(os.environ.get("MSA3D_HUB_ENVIRONMENT", "/opt/msa3d"))
# The project, from which every user gets a clone at the first start.
PROJECT = Path(os.environ.get("MSA3D_HUB_PROJECT", "/srv/msa3d/project"))
# Home directories while trying; otherwise those of the accounts.
HOMES = Path(os.environ.get("MSA3D_HUB_HOMES", "/srv/msa3d/homes"))
# One CRDS cache for all, which the operator fills (`msa3d fetch`) and users read. Simulated datasets bring their own.
CRDS = Path(os.environ.get("MSA3D_HUB_CRDS", "/srv/msa3d/crds_cache"))
# Count rates and metafiles, a directory an observation; users read them only (owner root, mode 0755 and 0644).
DATA = Path(os.environ.get("MSA3D_HUB_DATA", "/srv/msa3d/data"))

# --- The hub itself

c.JupyterHub.bind_url = "http://127.0.0.1:8000"  # (*) behind your TLS proxy, or set ssl_key and ssl_cert
c.JupyterHub.hub_ip = "127.0.0.1"  # (*) "0.0.0.0" where sessions run in containers
# (*) A page that one user makes another one open is of the same origin as that one's own: where users do not trust each
# other, give each a domain (needs a wildcard entry in the DNS and a certificate for it).
# c.JupyterHub.subdomain_host = "https://hub.example.org"

# --- Who may log in

# (*) The accounts of this machine that are in the group msa3d; yours: OAuthenticator, LTI, ...
c.JupyterHub.authenticator_class = "dummy" if TRY else "pam"
c.LocalAuthenticator.allowed_groups = {"msa3d"}
# Names become directories. JupyterHub compares the beginning of a name only: hence the end.
c.Authenticator.username_pattern = r"[a-z0-9][-a-z0-9_]{0,31}\Z"

# --- What a session is

# JupyterLab with the notebook that says what there is and what is next. Notebooks' `../runs/<dataset>` is then in the
# user's home, ~/msa3d/runs/<dataset>.
c.Spawner.default_url = "/lab/tree/msa3d/notebooks/00_start_here.ipynb"
c.Spawner.cmd = [str(ENVIRONMENT / "bin" / "jupyterhub-singleuser")]

c.Spawner.environment = {
    # `make` in a terminal takes the environment that is active, and makes no .venv.
    "MSA3D_ENV": "hub",
    "PATH": f"{ENVIRONMENT / 'bin'}:/usr/local/bin:/usr/bin:/bin",
    # One CRDS cache for all. Nobody writes into it, and no server is needed for what is in it.
    "CRDS_PATH": str(CRDS),
    "CRDS_READONLY_CACHE": "1",
    "CRDS_SERVER_URL": "https://jwst-crds.stsci.edu",
    "MSA3D_DATA": str(DATA),
    # One thread each: exposures and galaxies are worked on side by side in processes.
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
}

# Containers and systemd enforce these; local processes, as below, are only told. msa3d starts as many processes as the
# limits of its container allow. Two cores and 6 GB take `demo` through in a quarter of an hour.
c.Spawner.cpu_limit = 2
c.Spawner.mem_limit = "6G"
# The first start clones the project and imports JupyterLab from a cold disk.
c.Spawner.start_timeout = 120
c.Spawner.http_timeout = 120

# A kernel that has done nothing for an hour and that no browser shows ends; a working one never does. A session without
# kernels and terminals ends half an hour later. What was finished stays on disk, and a run goes on from there.
c.Spawner.args = [
    "--MappingKernelManager.cull_idle_timeout=3600",
    "--MappingKernelManager.cull_busy=False",
    "--MappingKernelManager.cull_connected=False",
    "--ServerApp.shutdown_no_activity_timeout=1800",
]

# --- Where sessions run

# (*) Each under the account of its user, in whose home directory nobody else can read.
c.JupyterHub.spawner_class = "simple" if TRY else "localprocess"
c.SimpleLocalProcessSpawner.home_dir_template = f"{HOMES}/{{username}}"


def prepare_home(spawner):
    """Close a user's home directory to others, and put a clone of the project there, which is then the user's own.

    The clone is made under the user's account, and with nothing of the environment of the hub, which has its secrets.
    git refuses to clone what belongs to another account unless the operator has said, once:
    ``git config --system --add safe.directory "$MSA3D_HUB_PROJECT/.git"`` (and the same without ``/.git``).
    """
    name = spawner.user.name
    if TRY:
        home, account = HOMES / name, {}
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    else:
        entry = pwd.getpwnam(name)
        home = Path(entry.pw_dir)
        account = {
            "user": entry.pw_uid,
            "group": entry.pw_gid,
            "extra_groups": os.getgrouplist(name, entry.pw_gid),
            "env": {"HOME": str(home), "PATH": os.environ.get("PATH", "/usr/bin:/bin")},
        }
    if home.is_symlink() or not home.is_dir():
        raise RuntimeError(f"{home}, the home directory of {name}, has to be a directory: make it, and log in again")
    home.chmod(0o700)
    clone = home / "msa3d"
    if not clone.exists():
        command = ["git", "clone", "--quiet", "--no-hardlinks", str(PROJECT), str(clone)]
        subprocess.run(command, check=True, umask=0o077, cwd=home, **account)


c.Spawner.pre_spawn_hook = prepare_home

# With the image (`make image`) there is nothing to clone. Its project, with notebooks and runs/, is /home/jovyan/msa3d:
# keep runs/ on a volume of the user, and not /home/jovyan, which would hide the project. Instead of the lines since
# "Where sessions run"; MSA3D_HUB_ENVIRONMENT is then /opt/msa3d, which is in the image. Written from the manuals of the
# two spawners (DockerSpawner 14.0, KubeSpawner 7.1), and not tried:
#
#   c.JupyterHub.spawner_class = "docker"                                   # pip install dockerspawner
#   c.DockerSpawner.image = "msa3d"
#   c.DockerSpawner.volumes = {"msa3d-runs-{username}": "/home/jovyan/msa3d/runs"}
#   c.DockerSpawner.read_only_volumes = {str(CRDS): str(CRDS), str(DATA): str(DATA)}
#
#   c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"                  # pip install jupyterhub-kubespawner
#   c.KubeSpawner.image = "registry.example.org/msa3d:0.2.0"
#   c.KubeSpawner.uid, c.KubeSpawner.fs_gid = 1000, 1000
#   c.KubeSpawner.pvc_name_template = "msa3d-runs-{username}"
#   c.KubeSpawner.storage_pvc_ensure, c.KubeSpawner.storage_capacity = True, "200Gi"
#   c.KubeSpawner.volumes = [
#       {"name": "runs", "persistentVolumeClaim": {"claimName": "{pvc_name}"}},
#       {"name": "shared", "persistentVolumeClaim": {"claimName": "msa3d-shared", "readOnly": True}},
#   ]
#   c.KubeSpawner.volume_mounts = [
#       {"name": "runs", "mountPath": "/home/jovyan/msa3d/runs"},
#       {"name": "shared", "mountPath": "/srv/msa3d", "readOnly": True},
#   ]
#
#   c.Spawner.default_url = "/lab/tree/notebooks/00_start_here.ipynb"       # the image starts in the project
