import Checksum
import Testing

/// Values of the reference implementation, by the Python package xxhash.
struct XXH3Tests {
    struct Case: Sendable {
        let bytes: [UInt8]
        let checksum: UInt64
        let seeded: UInt64
        let digest: String
    }

    static let cases = [
        Case(
            bytes: [], checksum: 0x2d06_8005_38d3_94c2, seeded: 0xb029_411f_f43d_84d2,
            digest: "99aa06d3014798d86001c324468d497f"),
        Case(
            bytes: [0x61], checksum: 0xe6c6_32b6_1e96_4e1f, seeded: 0x4c43_7dd4_7f07_16f4,
            digest: "a96faf705af16834e6c632b61e964e1f"),
        Case(
            bytes: (0..<256).map { UInt8($0) }, checksum: 0x9408_a443_3b95_2d71, seeded: 0xc1a5_5ca1_80b3_fd0a,
            digest: "f1f8a93f50849ac39408a4433b952d71"),
        Case(
            bytes: (0..<100_000).map { UInt8(truncatingIfNeeded: $0 * 7) }, checksum: 0x0127_1d27_40e5_fca3,
            seeded: 0x35e1_b33d_1e46_b5c4, digest: "4fb78cd2670dad5801271d2740e5fca3"),
    ]

    @Test(arguments: cases)
    func wholes(_ given: Case) {
        #expect(xxh3(given.bytes) == given.checksum)
        #expect(xxh3(given.bytes, seed: 42) == given.seeded)
        #expect(Digest(of: given.bytes).description == given.digest)
    }

    @Test(arguments: cases)
    func pieces(_ given: Case) {
        var digest = DigestHasher()
        var checksum = ChecksumHasher(seed: 42)
        for start in stride(from: 0, to: given.bytes.count, by: 977) {
            let piece = Array(given.bytes[start..<min(given.bytes.count, start + 977)])
            digest.update(piece.span.bytes)
            checksum.update(piece.span.bytes)
        }
        #expect(digest.digest().description == given.digest)
        #expect(checksum.checksum() == given.seeded)
    }

    @Test func textsThatAreNoDigest() {
        let text = Self.cases[0].digest
        #expect(Digest(text)?.description == text)
        #expect(Digest(String(text.dropLast())) == nil)
        #expect(Digest(text.replacingOccurrences("9", by: "g")) == nil)
        #expect(Digest(high: 1, low: 0) > Digest(high: 0, low: .max))
    }
}

extension String {
    fileprivate func replacingOccurrences(_ old: Character, by new: Character) -> String {
        String(map { $0 == old ? new : $0 })
    }
}
