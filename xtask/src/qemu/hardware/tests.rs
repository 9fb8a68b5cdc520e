use super::*;

const HMAT: &[&str] = &[
    "-machine",
    "q35,hmat=on",
    "-m",
    "3G",
    "-object",
    "memory-backend-ram,id=m0,size=1536M",
    "-object",
    "memory-backend-ram,id=m1,size=1536M",
    "-numa",
    "node,nodeid=0,memdev=m0,cpus=0-1",
    "-numa",
    "node,nodeid=1,memdev=m1,initiator=0",
    "-numa",
    "dist,src=0,dst=1,val=20",
    "-numa",
    "hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-latency,latency=100",
    "-numa",
    "hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-bandwidth,bandwidth=100G",
    "-numa",
    "hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=access-latency,latency=250",
    "-numa",
    "hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=access-bandwidth,bandwidth=40G",
];

const KMEM: &[&str] = &[
    "-machine",
    "q35,nvdimm=on",
    "-m",
    "1536M,slots=2,maxmem=8G",
    "-object",
    "memory-backend-ram,id=m0,size=1536M",
    "-numa",
    "node,nodeid=0,memdev=m0,cpus=0-1",
    "-numa",
    "node,nodeid=1",
    "-numa",
    "dist,src=0,dst=1,val=40",
    "-object",
    "memory-backend-ram,id=nv,size=1792M",
    "-device",
    "nvdimm,memdev=nv,node=1",
];

const SOCKETS: &[&str] = &[
    "-machine",
    "q35,hmat=on",
    "-m",
    "3G",
    "-object",
    "memory-backend-ram,id=m0,size=768M",
    "-object",
    "memory-backend-ram,id=m1,size=768M",
    "-object",
    "memory-backend-ram,id=m2,size=768M",
    "-object",
    "memory-backend-ram,id=m3,size=768M",
    "-numa",
    "node,nodeid=0,memdev=m0,cpus=0",
    "-numa",
    "node,nodeid=1,memdev=m1,cpus=1",
    "-numa",
    "node,nodeid=2,memdev=m2,initiator=0",
    "-numa",
    "node,nodeid=3,memdev=m3,initiator=1",
    "-numa",
    "dist,src=0,dst=1,val=21",
    "-numa",
    "dist,src=0,dst=2,val=17",
    "-numa",
    "dist,src=0,dst=3,val=28",
    "-numa",
    "dist,src=1,dst=2,val=28",
    "-numa",
    "dist,src=1,dst=3,val=17",
    "-numa",
    "dist,src=2,dst=3,val=28",
    "-numa",
    "hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-latency,latency=100",
    "-numa",
    "hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-bandwidth,bandwidth=100G",
    "-numa",
    "hmat-lb,initiator=1,target=1,hierarchy=memory,data-type=access-latency,latency=100",
    "-numa",
    "hmat-lb,initiator=1,target=1,hierarchy=memory,data-type=access-bandwidth,bandwidth=100G",
    "-numa",
    "hmat-lb,initiator=0,target=2,hierarchy=memory,data-type=access-latency,latency=250",
    "-numa",
    "hmat-lb,initiator=0,target=2,hierarchy=memory,data-type=access-bandwidth,bandwidth=40G",
    "-numa",
    "hmat-lb,initiator=1,target=3,hierarchy=memory,data-type=access-latency,latency=250",
    "-numa",
    "hmat-lb,initiator=1,target=3,hierarchy=memory,data-type=access-bandwidth,bandwidth=40G",
];

fn of(name: &str) -> Vec<String> {
    arguments(Kind::named(name).unwrap())
}

#[test]
fn firmware_tells_of_every_node_and_of_the_slow_one_that_it_is_slower() {
    assert_eq!(of("hmat"), HMAT);
}

#[test]
fn an_nvdimm_is_plugged_into_a_node_without_memory() {
    assert_eq!(of("kmem"), KMEM);
}

#[test]
fn each_socket_has_the_slow_node_that_is_nearest() {
    assert_eq!(of("sockets"), SOCKETS);
}

#[test]
fn of_one_node_there_is_nothing_to_tell() {
    let one = ["-machine", "q35", "-m", "1536M", "-object", "memory-backend-ram,id=m0,size=1536M"];
    assert_eq!(of("one-tier"), [&one[..], &["-numa", "node,nodeid=0,memdev=m0,cpus=0-1"]].concat());
}

#[test]
fn a_cxl_device_is_no_node_of_the_firmware() {
    let cxl = of("cxl-type3");
    assert_eq!(cxl.iter().filter(|word| word.starts_with("node,")).count(), 1);
    assert!(cxl[1].starts_with("q35,cxl=on"), "{cxl:?}");
    assert!(!cxl.iter().any(|word| word.starts_with("dist,")), "{cxl:?}");
}

#[test]
fn every_machine_has_a_command_line_that_a_kernel_takes() {
    for kind in thermocline_tests::machine::kinds() {
        assert!(kind.told.len() < 1200, "{}: {} bytes", kind.name, kind.told.len());
    }
}
