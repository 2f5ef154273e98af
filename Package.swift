// swift-tools-version: 6.2
import PackageDescription

// Every layer is a folder of Sources/ and a target here; a target may name only targets below it,
// so the compiler refuses an import that points up (see the map in README.md).

let settings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

/// Where a span is handed out of memory that is not an array's.
let spanSettings = settings + [.enableExperimentalFeature("Lifetimes")]

let package = Package(
    name: "lorif",
    products: [
        .executable(name: "lorif", targets: ["lorif"]),
        .library(name: "LorifEngine", targets: ["Engine"]),
        // What Tools/Benchmarks times by itself.
        .library(name: "LorifKernels", targets: ["Kernels", "Schema", "Scoring"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
        .package(url: "https://github.com/swiftlang/swift-docc-plugin", from: "1.5.0"),
    ],
    targets: [
        // C libraries, each imported by exactly one Swift module.
        .systemLibrary(name: "CLAPACKE", pkgConfig: "lapacke", providers: [.apt(["liblapacke-dev"])]),
        .systemLibrary(name: "CLMDB", pkgConfig: "lmdb", providers: [.apt(["liblmdb-dev"])]),
        .systemLibrary(name: "COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev"])]),
        .systemLibrary(name: "CXXHash", pkgConfig: "libxxhash", providers: [.apt(["libxxhash-dev"])]),
        .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
        .target(name: "CKernels"),
        .target(name: "CPlatform"),

        // Vocabulary and wrappers.
        .target(name: "Checksum", dependencies: ["CXXHash"], swiftSettings: settings),
        .target(name: "Schema", dependencies: ["Checksum"], swiftSettings: settings),
        .target(
            name: "Files", dependencies: ["CPlatform", .product(name: "SystemPackage", package: "swift-system")],
            swiftSettings: spanSettings),
        .target(name: "Kernels", dependencies: ["CKernels", "Schema"], swiftSettings: settings),
        .target(name: "LMDB", dependencies: ["CLMDB", "Files"], swiftSettings: settings),
        .target(name: "LinearAlgebra", dependencies: ["CLAPACKE", "COpenBLAS", "Schema"], swiftSettings: settings),
        .target(name: "Zstd", dependencies: ["CZstd"], swiftSettings: settings),

        // The storage column.
        .target(name: "Format", dependencies: ["Checksum", "Schema"], swiftSettings: settings),
        .target(
            name: "Interchange", dependencies: ["Checksum", "Files", "Kernels", "Schema"], swiftSettings: settings),
        .target(
            name: "Store", dependencies: ["Checksum", "Files", "Format", "Kernels", "LMDB", "Schema", "Zstd"],
            swiftSettings: spanSettings),

        // The compute column: knows no files.
        .target(name: "Curvature", dependencies: ["LinearAlgebra", "Schema"], swiftSettings: settings),
        .target(name: "Scoring", dependencies: ["Kernels", "LinearAlgebra", "Schema"], swiftSettings: settings),

        // Where the columns meet, and the command line.
        .target(
            name: "Engine",
            dependencies: [
                "Checksum", "Curvature", "Files", "Format", "Interchange", "Kernels", "LinearAlgebra", "Schema",
                "Scoring", "Store",
            ],
            swiftSettings: settings),
        .executableTarget(
            name: "lorif",
            dependencies: [
                "Checksum", "Curvature", "Engine", "Files", "Format", "Interchange", "Schema", "Store",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: settings),

        // What README shows of the library, run by a test; no product.
        .executableTarget(
            name: "ask-example", dependencies: ["Engine"], path: "Tools/examples/ask", swiftSettings: settings),

        // Times look-ups within a process, for Tools/bench/storage.py; no product.
        .executableTarget(
            name: "lookup-bench", dependencies: ["Store"], path: "Tools/bench/lookup", swiftSettings: settings),

        // What several of the tests below need.
        .target(name: "TestSupport", path: "Tests/TestSupport", swiftSettings: settings),
        .testTarget(name: "ChecksumTests", dependencies: ["Checksum"], swiftSettings: settings),
        .testTarget(
            name: "CurvatureTests", dependencies: ["Curvature", "LinearAlgebra", "Schema"], swiftSettings: settings),
        .testTarget(
            name: "EngineTests",
            dependencies: [
                "Checksum", "Curvature", "Engine", "Interchange", "LinearAlgebra", "Schema", "Scoring", "Store",
            ],
            swiftSettings: settings),
        .testTarget(name: "FilesTests", dependencies: ["Files", "TestSupport"], swiftSettings: settings),
        .testTarget(name: "FormatTests", dependencies: ["Checksum", "Format", "Schema"], swiftSettings: settings),
        .testTarget(
            name: "InterchangeTests", dependencies: ["Files", "Interchange", "Schema"], exclude: ["Resources"],
            swiftSettings: settings),
        .testTarget(name: "KernelsTests", dependencies: ["Kernels", "Schema"], swiftSettings: settings),
        .testTarget(name: "LMDBTests", dependencies: ["LMDB", "TestSupport"], swiftSettings: settings),
        .testTarget(name: "LinearAlgebraTests", dependencies: ["LinearAlgebra", "Schema"], swiftSettings: settings),
        .testTarget(
            name: "ScoringTests", dependencies: ["Kernels", "LinearAlgebra", "Schema", "Scoring"],
            swiftSettings: settings),
        .testTarget(
            name: "StoreTests",
            dependencies: ["Checksum", "Files", "Format", "Kernels", "LMDB", "Schema", "Store", "TestSupport"],
            swiftSettings: settings),
        .testTarget(name: "ZstdTests", dependencies: ["Zstd"], swiftSettings: settings),
    ],
    swiftLanguageModes: [.v6],
    cLanguageStandard: .c11
)

// Fuzzing needs a build with sanitizers: Tools/fuzz/run.py makes it.
if Context.environment["LORIF_FUZZ"] != nil {
    package.targets.append(
        .executableTarget(
            name: "lorif-fuzz",
            dependencies: ["Checksum", "Engine", "Files", "Format", "Interchange", "Schema", "Store", "Zstd"],
            path: "Tools/fuzz/targets", swiftSettings: settings))
}
