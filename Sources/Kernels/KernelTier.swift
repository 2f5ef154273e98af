import CKernels

/// One instruction-set tier of the loops in CKernels; the portable one is the meaning. The others give the same bits, but for the
/// order of summation of scores from row-major pages (`lorif_scans`).
package struct KernelTier: @unchecked Sendable {
    // The tables are constants of the C module, so the pointer may cross threads.
    let table: UnsafePointer<lorif_kernels>

    /// Every tier that this machine can run, portable first, fastest last.
    package static let available: [KernelTier] = (0..<lorif_tier_count()).compactMap { index in
        unsafe lorif_tier(index).map { unsafe KernelTier(table: $0) }
    }

    /// The tier that the public functions use: chosen once.
    package static let chosen: KernelTier = available[available.count - 1]

    /// The tier's name, "portable" or that of an instruction set.
    package var name: String { unsafe String(cString: table.pointee.name) }
}

/// The name of the tier that the kernels use on this machine.
public var chosenKernelTierName: String { KernelTier.chosen.name }
