"""Getting wheels from the package index as plain archives: pinned by version and SHA-256, nothing installed or run."""
import os
import subprocess
import sys


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
    return command if works(command) else None


def download(pip, work, package, version, sha256):
    """The wheel of a package; pip checks its hash. Returns its path or None."""
    wanted = os.path.join(work, package + ".txt")
    with open(wanted, "w") as f:
        f.write("%s==%s --hash=sha256:%s\n" % (package, version, sha256))
    folder = os.path.join(work, package)
    code = subprocess.run(pip + ["download", "--no-deps", "--only-binary=:all:", "--require-hashes",
                                 "--disable-pip-version-check", "--no-cache-dir", "-d", folder, "-r", wanted]).returncode
    wheels = os.listdir(folder) if code == 0 and os.path.isdir(folder) else []
    return os.path.join(folder, wheels[0]) if wheels else None
