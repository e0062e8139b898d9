//! The parts of a cluster that run pods: controllers, scheduler, container runtime, kubelet, Service proxy and DNS.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use serde_json::json;

use super::network::Network;
use crate::control_plane::{Servers, options};
use crate::launch::{Launch, Namespace, Place, Running};
use crate::pki::{User, write_private};
use crate::prerequisites;
use crate::state::StateDir;
use crate::tools::Tools;

/// Name of the one node.
pub const NODE: &str = "node";
/// Image of process 1 of each pod.
pub(crate) const PAUSE_IMAGE: &str = "localhost/temporal-worker-pause:dev";
/// DNS domain of the cluster.
pub const DOMAIN: &str = "cluster.local";

/// Kernel settings that the kubelet insists on. They are the machine's, so the kubelet sees files of ours instead.
const KERNEL_SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Folders of the machine that programs use without being asked; inside the namespaces ours lie over them.
const COVERED: [&str; 3] = ["run", "var/log", "var/lib/cni"];

/// What all parts need to know.
pub(crate) struct Node<'a> {
    pub tools: &'a Tools,
    pub state: &'a StateDir,
    pub namespace: &'a Namespace,
    pub network: &'a Network,
    pub cgroup: &'a str,
}

impl Node<'_> {
    /// Sets up mounts and network inside the namespaces.
    pub fn prepare(&self) -> Result<()> {
        let mut script = self.network.inner_script();
        for (name, value) in KERNEL_SETTINGS {
            let setting = self.state.path().join("sysctl").join(name);
            fs::create_dir_all(setting.parent().unwrap_or(&setting))?;
            fs::write(&setting, value)?;
            script.push_str(&format!("mount --bind '{}' /proc/sys/{name}\n", setting.display()));
        }
        for name in COVERED {
            let ours = self.state.subdirectory(&format!("covered/{name}"))?;
            script.push_str(&format!("mkdir -p /{name}\nmount --bind '{}' /{name}\n", ours.display()));
        }
        self.namespace.run_script(&script).context("set up the cluster's namespaces")?;
        Ok(())
    }

    /// Starts the container runtime.
    pub fn start_containerd(&self) -> Result<Running> {
        let directory = self.state.subdirectory("containerd")?;
        let config = directory.join("config.toml");
        write_private(&config, self.containerd_config(&directory)?.as_bytes())?;
        let cni = self.state.subdirectory("cni")?;
        write_private(&cni.join("10-pods.conflist"), &serde_json::to_vec_pretty(&self.cni_config())?)?;
        let shims = self.tools.program("containerd-shim-runc-v2")?.parent().unwrap_or(Path::new("/"));
        let mut path = shims.as_os_str().to_owned();
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        path.push(":/usr/sbin:/sbin:/usr/bin:/bin");
        self.launch("containerd", vec!["--config".into(), config.into()], vec![("PATH", path)])
    }

    /// Starts everything else. The API server must be ready and hold the objects of `objects.rs`.
    pub fn start(&self, servers: &Servers) -> Result<Vec<Running>> {
        Ok(vec![
            self.start_controller_manager(servers)?,
            self.start_scheduler(servers)?,
            self.start_kubelet(servers)?,
            self.start_proxy(servers)?,
            self.start_dns(servers)?,
        ])
    }

    fn launch(&self, name: &str, arguments: Vec<OsString>, environment: Vec<(&str, OsString)>) -> Result<Running> {
        let logs = self.state.subdirectory("logs")?;
        let program = self.tools.program(name)?;
        Place::Inside(self.namespace).launch(Launch {
            name,
            program,
            arguments,
            environment,
            logs: &logs,
            goes_first: false,
        })
    }

    fn kubeconfig(&self, servers: &Servers, user: User<'_>) -> Result<OsString> {
        let path = self.state.subdirectory("pki")?.join(format!("{}.kubeconfig", user.name.replace(':', "-")));
        servers.authority.write_kubeconfig(&path, &servers.server, "cluster", user)?;
        Ok(path.into())
    }

    fn start_controller_manager(&self, servers: &Servers) -> Result<Running> {
        let user = User { name: "system:kube-controller-manager", group: "test cluster" };
        let mut arguments = options([
            ("kubeconfig", self.kubeconfig(servers, user)?),
            ("bind-address", "127.0.0.1".into()),
            ("service-account-private-key-file", servers.service_account.key.clone().into()),
            ("root-ca-file", servers.authority.certificate().into()),
            ("leader-elect", "false".into()),
        ]);
        arguments.push("--use-service-account-credentials".into());
        self.launch("kube-controller-manager", arguments, Vec::new())
    }

    fn start_scheduler(&self, servers: &Servers) -> Result<Running> {
        let user = User { name: "system:kube-scheduler", group: "test cluster" };
        let arguments = options([
            ("kubeconfig", self.kubeconfig(servers, user)?),
            ("bind-address", "127.0.0.1".into()),
            ("leader-elect", "false".into()),
        ]);
        self.launch("kube-scheduler", arguments, Vec::new())
    }

    fn start_kubelet(&self, servers: &Servers) -> Result<Running> {
        let user = User { name: &format!("system:node:{NODE}"), group: "system:nodes" };
        let address = IpAddr::V4(self.network.node());
        let serving = servers.authority.sign("kubelet", user, &[address], &[])?;
        let directory = self.state.subdirectory("kubelet")?;
        let config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": address,
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": servers.authority.certificate()},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": serving.certificate,
            "tlsPrivateKeyFile": serving.key,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.cgroup,
            "failCgroupV1": false,
            "failSwapOn": false,
            "containerRuntimeEndpoint": format!("unix://{}", self.containerd_socket().display()),
            "clusterDNS": [address],
            "clusterDomain": DOMAIN,
            // Pods ask the cluster's DNS alone; the machine's resolver is out of their reach.
            "resolvConf": "",
            // A disk that is nearly full is the machine's matter; images have no registry to come back from.
            "evictionHard": {"nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%", "imagefs.inodesFree": "0%"},
            "imageGCHighThresholdPercent": 100,
            "maxPods": 200,
            "makeIPTablesUtilChains": false,
            "podLogsDir": self.state.subdirectory("pod-logs")?,
            "volumePluginDir": directory.join("volume-plugins"),
            "enableServer": true,
        });
        let config_file = directory.join("config.json");
        write_private(&config_file, &serde_json::to_vec_pretty(&config)?)?;
        let arguments = options([
            ("config", config_file.into()),
            ("kubeconfig", self.kubeconfig(servers, user)?),
            ("root-dir", directory.clone().into()),
            ("cert-dir", directory.join("pki").into()),
            ("node-ip", address.to_string().into()),
            ("hostname-override", NODE.into()),
        ]);
        self.launch("kubelet", arguments, Vec::new())
    }

    fn start_proxy(&self, servers: &Servers) -> Result<Running> {
        let user = User { name: "system:kube-proxy", group: "test cluster" };
        let config = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clusterCIDR": self.network.pods(),
            "hostnameOverride": NODE,
            "clientConnection": {"kubeconfig": PathBuf::from(self.kubeconfig(servers, user)?)},
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            // A Service answers as soon as it has a pod, rather than up to a second later.
            "nftables": {"minSyncPeriod": "100ms"},
            // These settings belong to the machine's first network namespace and can't be set in ours.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        });
        let config_file = self.state.subdirectory("kube-proxy")?.join("config.json");
        write_private(&config_file, &serde_json::to_vec_pretty(&config)?)?;
        self.launch("kube-proxy", options([("config", config_file.into())]), Vec::new())
    }

    fn start_dns(&self, servers: &Servers) -> Result<Running> {
        let user = User { name: super::objects::DNS_USER, group: "test cluster" };
        let kubeconfig = PathBuf::from(self.kubeconfig(servers, user)?);
        let address = self.network.node();
        // Names of the world don't exist here: said at once, a client needs no time-out to learn it.
        let corefile = format!(
            "{DOMAIN}:53 in-addr.arpa:53 {{\n  bind {address}\n  errors\n  kubernetes {DOMAIN} in-addr.arpa {{\n    \
             kubeconfig {}\n    pods insecure\n    ttl 5\n  }}\n}}\n\
             .:53 {{\n  bind {address}\n  errors\n  template ANY ANY {{\n    rcode NXDOMAIN\n  }}\n}}\n",
            kubeconfig.display()
        );
        let config_file = self.state.subdirectory("coredns")?.join("Corefile");
        write_private(&config_file, corefile.as_bytes())?;
        self.launch("coredns", vec!["-conf".into(), config_file.into()], Vec::new())
    }

    fn containerd_socket(&self) -> PathBuf {
        containerd_socket(self.state.path())
    }

    fn containerd_config(&self, directory: &Path) -> Result<String> {
        // An overlay can't lie on an overlay, which is what a container's own root file system is.
        let snapshotter =
            if statfs(directory)?.filesystem_type() == OVERLAYFS_SUPER_MAGIC { "native" } else { "overlayfs" };
        let plugins = prerequisites::cni_directory().context("the CNI plugins are gone")?;
        let state = self.state.path().display();
        let directory = directory.display();
        Ok(format!(
            "version = 3
root = '{directory}/root'
state = '{directory}/state'
[grpc]
address = '{socket}'
[plugins.'io.containerd.internal.v1.opt']
path = '{directory}/opt'
[plugins.'io.containerd.cri.v1.images']
snapshotter = '{snapshotter}'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE_IMAGE}'
[plugins.'io.containerd.cri.v1.runtime']
# Without CAP_SYS_RESOURCE no process can lower its OOM score, and no sandbox would start.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{plugins}']
conf_dir = '{state}/cni'
[plugins.'io.containerd.transfer.v1.local']
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
platform = 'linux'
snapshotter = '{snapshotter}'
[plugins.'io.containerd.nri.v1.nri']
disable = true
",
            socket = self.containerd_socket().display(),
        ))
    }

    fn cni_config(&self) -> serde_json::Value {
        json!({
            "cniVersion": "1.0.0",
            "name": "pods",
            "plugins": [{
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "dataDir": self.state.path().join("cni-addresses"),
                    "ranges": [[{"subnet": self.network.pods()}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }],
        })
    }
}

/// containerd's socket below a cluster's folder.
pub(crate) fn containerd_socket(state: &Path) -> PathBuf {
    state.join("containerd/containerd.sock")
}
