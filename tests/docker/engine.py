"""A Docker engine of our own: dockerd with its own directories and socket, and one image made of a static busybox.

Containers get no network, unless a bridge is asked for; dockerd's log driver, which is what is tested, speaks from the
host. Everything lives in one temporary directory and ends by the ids that this module started.
"""
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile

from support.suite import Skip, eventually


def find(name):
    """A program of the distribution, before others of the same name: client and engine must fit."""
    for folder in ("/usr/bin", "/usr/sbin"):
        if os.access(os.path.join(folder, name), os.X_OK):
            return os.path.join(folder, name)
    return shutil.which(name)


def missing():
    """Why this machine cannot run containers, or None."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [name for name in ("dockerd", "docker", "containerd", "runc", "busybox") if not find(name)]
    return "not installed: " + ", ".join(absent) if absent else None


class Engine:
    """dockerd and the containers it runs. Use as a context. `credentials` go into dockerd's environment: that is
    where its awslogs driver looks for them. `network`: containers get a bridge of their own, without a way out of the
    machine. `size`: of the disk that its images and containers have, as mount takes it."""

    def __init__(self, credentials=None, network=False, size=None):
        why = missing()
        if why:
            raise Skip(why)
        self.base = tempfile.mkdtemp(prefix="fl-docker-")
        self.socket = os.path.join(self.base, "docker.sock")
        self.environment = dict(os.environ, DOCKER_HOST="unix://" + self.socket, DOCKER_CONFIG=self.base)
        self.credentials = dict(os.environ, **credentials or {})
        self.client, self.process, self.containers = find("docker"), None, []
        self.bridge = "fl%d" % os.getpid() if network else None
        self.size = size

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def start(self):
        ensure_cgroups()
        if self.bridge and not os.path.exists("/sys/class/net/" + self.bridge):
            make_bridge(self.bridge)
        path = lambda name: os.path.join(self.base, name)
        if self.size and not os.path.exists(path("data")):
            os.mkdir(path("data"))
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + self.size, "tmpfs", path("data")], check=True)
        name = "fl%d" % os.getpid()
        with open(path("dockerd.log"), "wb") as log:
            self.process = subprocess.Popen(
                [find("dockerd"), "--data-root", path("data"), "--exec-root", path("exec"),
                 "--pidfile", path("docker.pid"), "-H", "unix://" + self.socket, "--bridge", self.bridge or "none",
                 "--iptables=false", "--ip-forward=false", "--ip-masq=false", "--storage-driver", "vfs",
                 "--exec-opt", "native.cgroupdriver=cgroupfs", "--log-level", "warn",
                 "--containerd-namespace", name, "--containerd-plugins-namespace", name + "p"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=self.credentials)
        up = lambda: self.process.poll() is not None or self.docker("version", check=False).returncode == 0
        eventually(lambda: "dockerd answers:\n" + self.messages(), up, 60, 0.2)
        assert self.process.poll() is None, "dockerd ended at start:\n" + self.messages()
        self.docker("import", "-", "busybox", input=busybox_image())

    def messages(self):
        with open(os.path.join(self.base, "dockerd.log"), encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-20:])

    def docker(self, *arguments, check=True, input=None, timeout=120):
        """Runs the client."""
        done = subprocess.run([self.client, *arguments], input=input, env=self.environment, timeout=timeout,
                              stdin=subprocess.DEVNULL if input is None else None, capture_output=True)
        if check and done.returncode:
            raise AssertionError("docker %s: %s" % (" ".join(arguments), done.stderr.decode().strip()))
        return done

    def run(self, options, *words):
        """Starts a container in the background. Returns its id."""
        done = self.docker("run", "-d", "--network", "none", *options, "busybox", *words)
        self.containers.append(done.stdout.decode().strip())
        return self.containers[-1]

    def state(self, container):
        return json.loads(self.docker("inspect", "-f", "{{json .State}}", container).stdout)

    def wait(self, container, timeout=60):
        """Waits for a container's end. Returns its exit code."""
        return int(self.docker("wait", container, timeout=timeout).stdout)

    def close(self):
        for container in self.containers:
            self.docker("rm", "-f", container, check=False)
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        end_pid(os.path.join(self.base, "exec", "containerd", "containerd.pid"))
        if self.bridge:
            subprocess.run(["ip", "link", "del", self.bridge], capture_output=True)
        unmount_below(self.base)
        shutil.rmtree(self.base, ignore_errors=True)


def busybox_image():
    """A tar with busybox and its applets as links."""
    busybox = find("busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(busybox, "bin/busybox")
        for name in applets:
            if name != "busybox":
                link = tarfile.TarInfo("bin/" + name)
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        for folder in ("tmp", "host", "in"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(entry)
    return out.getvalue()


def ensure_cgroups():
    """Mounts the cgroup controllers where nothing has: in a bare chroot, for example."""
    root = "/sys/fs/cgroup"
    with open("/proc/self/mounts") as mounts:
        if any(line.split()[2] in ("cgroup", "cgroup2") for line in mounts):
            return
    subprocess.run(["mount", "-t", "tmpfs", "cgroup", root], check=True)
    with open("/proc/cgroups") as controllers:
        for name, _, _, enabled in (line.split() for line in controllers if not line.startswith("#")):
            folder = os.path.join(root, name)
            os.mkdir(folder)
            if enabled != "1" or subprocess.run(["mount", "-t", "cgroup", "-o", name, "cgroup", folder]).returncode:
                os.rmdir(folder)


def make_bridge(name):
    """A bridge with a network that nobody has; dockerd takes both as they are."""
    if not find("ip"):
        raise Skip("not installed: ip")
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    for third in range(16, 256):
        address = "172.%d.%d.1/24" % (16 + os.getpid() % 16, third)
        taken = subprocess.run(["ip", "-4", "route", "show", "to", "match", address.split("/")[0], "scope", "link"],
                               capture_output=True, text=True).stdout
        if not taken:
            subprocess.run(["ip", "addr", "add", address, "dev", name], check=True)
            break
    subprocess.run(["ip", "link", "set", name, "up"], check=True)


def end_pid(pidfile):
    """Ends the containerd that dockerd started, should dockerd have been killed before it could."""
    try:
        with open(pidfile) as f:
            pid = int(f.read())
        with open("/proc/%d/comm" % pid) as f:
            if f.read().strip() == "containerd":
                os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError):
        pass


def unmount_below(folder):
    with open("/proc/self/mounts") as mounts:
        below = [line.split()[1] for line in mounts if line.split()[1].startswith(folder + "/")]
    for point in sorted(below, reverse=True):
        subprocess.run(["umount", "-l", point], capture_output=True)
