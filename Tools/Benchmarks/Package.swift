// swift-tools-version: 6.2
import PackageDescription

// Apart from the library's package, so that nobody who builds lorif builds the benchmark library.

let settings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

let package = Package(
    name: "lorif-benchmarks",
    dependencies: [
        .package(name: "lorif", path: "../.."),
        // Without its traits it counts no allocations, and needs no library that would.
        .package(url: "https://github.com/ordo-one/benchmark", from: "1.38.1", traits: []),
    ],
    targets: [
        .executableTarget(
            name: "Kernels-Benchmark",
            dependencies: [
                .product(name: "Benchmark", package: "benchmark"), .product(name: "LorifKernels", package: "lorif"),
            ],
            path: "Benchmarks/Kernels", swiftSettings: settings,
            plugins: [.plugin(name: "BenchmarkPlugin", package: "benchmark")]),
        .executableTarget(
            name: "Store-Benchmark",
            dependencies: [
                .product(name: "Benchmark", package: "benchmark"), .product(name: "LorifEngine", package: "lorif"),
            ],
            path: "Benchmarks/Store", swiftSettings: settings,
            plugins: [.plugin(name: "BenchmarkPlugin", package: "benchmark")]),
    ],
    swiftLanguageModes: [.v6]
)
