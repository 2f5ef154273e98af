import CZstd

/// The version of the Zstandard library that was loaded, as in "1.5.4".
public var zstdVersion: String {
    let number = ZSTD_versionNumber()
    return "\(number / 10_000).\(number / 100 % 100).\(number % 100)"
}
