//! What a kernel module file says of itself.

/// Names of the modules that must be loaded before this one, from the `.modinfo` section: `depends=a,b`.
#[must_use]
pub fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = &module[at + KEY.len()..];
    let value = &value[..value.iter().position(|&byte| byte == 0).unwrap_or(value.len())];
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::depends;

    #[test]
    fn dependencies_are_named_as_the_kernel_names_them() {
        assert_eq!(depends(b"\x7fELF\0license=GPL\0depends=nd-btt,libnvdimm\0x"), ["nd_btt", "libnvdimm"]);
    }

    #[test]
    fn a_module_that_stands_alone_has_none() {
        assert!(depends(b"\x7fELF\0depends=\0name=a\0").is_empty());
    }
}
