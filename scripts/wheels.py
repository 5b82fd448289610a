"""Getting wheels from the package index as plain archives: pinned by version and SHA-256, nothing installed or run."""
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile


class Problem(Exception):
    """What the user is told."""


def cache(name):
    return os.path.join(os.path.expanduser("~"), ".cache", "lapidary", name)


def works(command):
    try:
        return subprocess.run(command + ["--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def find_pip(work):
    """A pip to call: this Python's, one on the path, or one in a fresh virtual environment."""
    for command in ([sys.executable, "-m", "pip"], ["pip3"]):
        if works(command):
            return command
    print("no pip here; making a virtual environment for it", flush=True)
    env = os.path.join(work, "venv")
    subprocess.run([sys.executable, "-m", "venv", env], stdout=subprocess.DEVNULL)
    command = [os.path.join(env, "bin", "python3"), "-m", "pip"]
    if not works(command):
        raise Problem("no pip: install the packages python3-pip or python3-venv, then run this again")
    return command


def download(pip, work, package, version, sha256):
    """The path of a package's wheel; pip checks its hash."""
    wanted = os.path.join(work, package + ".txt")
    with open(wanted, "w") as f:
        f.write("%s==%s --hash=sha256:%s\n" % (package, version, sha256))
    folder = os.path.join(work, package)
    code = subprocess.run(pip + ["download", "--no-deps", "--only-binary=:all:", "--require-hashes",
                                 "--disable-pip-version-check", "--no-cache-dir", "-d", folder, "-r", wanted]).returncode
    wheels = os.listdir(folder) if code == 0 and os.path.isdir(folder) else []
    if not wheels:
        raise Problem("%s could not be downloaded" % package)
    return os.path.join(folder, wheels[0])


def fetch(program, output, make):
    """Puts what make(pip, work) gives, a file or folder below the folder `work`, at `output` at once, so that an
    interrupted run leaves no half of it. Returns the exit code."""
    try:
        parent = os.path.dirname(os.path.abspath(output))
        os.makedirs(parent, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=parent) as work:
            made = make(find_pip(work), work)
            if os.path.isdir(output):
                shutil.rmtree(output)
            os.replace(made, output)
    except (OSError, zipfile.BadZipFile, KeyError, Problem) as e:
        print("%s: %s" % (program, e), file=sys.stderr)
        return 1
    print("%s is ready" % output)
    return 0
