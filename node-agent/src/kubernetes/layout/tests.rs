use super::*;

const UID: &str = "c45b4909-5638-4e54-9055-67415c748543";
const SLICE: &str = "c45b4909_5638_4e54_9055_67415c748543";
/// The hash of a static pod's manifest.
const HASH: &str = "f0a4cf83a2fd8c2a4c5b0c3d4e5f6071";
const ID: &str = "0a93a3c11894fa8c6137499f81204d3f8d5451cbfa3c6359c7466dc78bd6e0b4";

/// `UID`, `SLICE`, `HASH` and `ID` stand for the constants.
fn check(path: &str, expected: Option<(&str, Option<&str>, bool)>) {
    let full = path.replace("UID", UID).replace("SLICE", SLICE).replace("HASH", HASH).replace("ID", ID);
    let expected = expected.map(|(uid, container, inner)| Place {
        uid: uid.to_owned(),
        container: container.map(str::to_owned),
        inner,
    });
    assert_eq!(place(&CgroupPath::new(&full).unwrap()), expected, "{path}");
}

const POD: Option<(&str, Option<&str>, bool)> = Some((UID, None, false));
const CONTAINER: Option<(&str, Option<&str>, bool)> = Some((UID, Some(ID), false));
const IN_CONTAINER: Option<(&str, Option<&str>, bool)> = Some((UID, Some(ID), true));

#[test]
fn pods_of_each_class_are_found_under_both_drivers() {
    check("/kubepods/podUID", POD);
    check("/kubepods/burstable/podUID", POD);
    check("/kubepods/besteffort/podUID", POD);
    check("/kubepods.slice/kubepods-podSLICE.slice", POD);
    check("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podSLICE.slice", POD);
    check("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podSLICE.slice", POD);
}

#[test]
fn containers_are_known_by_their_id_whatever_the_runtime_puts_before_it() {
    let slice = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podSLICE.slice";
    for name in ["cri-containerd-ID.scope", "crio-ID.scope", "docker-ID.scope", "libpod-ID.scope"] {
        check(&format!("{slice}/{name}"), CONTAINER);
    }
    for name in ["ID", "crio-ID"] {
        check(&format!("/kubepods/besteffort/podUID/{name}"), CONTAINER);
    }
}

#[test]
fn a_monitor_is_the_pods_and_no_container() {
    let monitor = Some((UID, None, true));
    check("/kubepods.slice/kubepods-podSLICE.slice/crio-conmon-ID.scope", monitor);
    check("/kubepods/podUID/crio-conmon-ID", monitor);
}

#[test]
fn what_a_container_made_is_in_the_container() {
    check("/kubepods/podUID/ID/init.scope", IN_CONTAINER);
    check("/kubepods.slice/kubepods-podSLICE.slice/crio-ID.scope/container", IN_CONTAINER);
    check(
        "/kubepods.slice/kubepods-podSLICE.slice/cri-containerd-ID.scope/system.slice/a.service",
        IN_CONTAINER,
    );
}

#[test]
fn a_static_pod_is_known_by_the_hash_of_its_manifest() {
    check("/kubepods/burstable/podHASH", Some((HASH, None, false)));
    check(
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podHASH.slice/cri-containerd-ID.scope",
        Some((HASH, Some(ID), false)),
    );
}

#[test]
fn kubelets_root_may_be_nested() {
    check("/kubelet/kubepods/burstable/podUID/ID", CONTAINER);
    check("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podSLICE.slice", POD);
    check(
        "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/\
         kubelet-kubepods-burstable-podSLICE.slice/cri-containerd-ID.scope",
        CONTAINER,
    );
    check(
        "/system.slice/docker-ID.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podSLICE.slice",
        POD,
    );
    check("/a/b/c/d/e/f/g/kubepods/podUID", POD);
    check("/a/b/c/d/e/f/g/h/kubepods/podUID", None);
}

#[test]
fn of_pods_within_a_pod_it_is_the_outer_one() {
    check("/kubepods/podUID/ID/kubelet/kubepods/podHASH/ID", IN_CONTAINER);
}

#[test]
fn what_is_no_pods_is_none() {
    for path in [
        "/",
        "/kubepods",
        "/kubepods.slice",
        "/kubepods.slice/kubepods-burstable.slice",
        "/kubepods/burstable",
        "/kubepods/pod",
        "/kubepods/podUID.bak",
        "/kubepods/other",
        "/kubepods.slice/kubepods-other.slice",
        "/kubepods.slice/other-podSLICE.slice",
        "/notkubepods.slice/notkubepods-podSLICE.slice",
        "/kubelet.slice/kubelet-kubepods.slice/kubepods-podSLICE.slice",
        "/system.slice/containerd.service",
        "/system.slice/containerd.service/kubepods-burstable-podSLICE.slice:cri-containerd:ID",
    ] {
        check(path, None);
    }
}
