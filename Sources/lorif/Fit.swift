import ArgumentParser
import Checksum
import Curvature
import Engine
import Foundation
import Schema
import Store

/// `lorif fit`: curvature of the stored rows.
struct Fit: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Fit the curvature that influence scores need.",
        discussion: """
            Finds the eigenvalues and eigenvectors of H = Σ g gᵀ over the stored rows, per layer or over all layers together: \
            the leading R (truncated SVD), or all (--exact). The damping is chosen later, at query time.

            Every fit is kept under an id of its contents; queries use the newest, or the one chosen with --use. The same fit is \
            not computed twice. An interrupted fit goes on where it was when the same command is given again.

            --coordinates keeps what self-influence needs of every row in a column of its own, as int8, f16 or f32: self-influence and \
            RelatIF are then answered without projecting the rows again, with any damping. Rows that are ingested or attached \
            later get theirs at once.

              lorif fit store --rank 256
              lorif fit store --rank 256 --coordinates int8
              lorif fit store --rank 256 --scope global --memory 4GiB --dry-run
              lorif fit store --list
              lorif fit store --use 3f9a --coordinates int8
            """)

    @Argument(help: "The store.")
    var store: String
    @Option(help: "Eigenvectors to keep per layer (or in all, with global scope); 256 unless said.")
    var rank: Int?
    @Option(help: "per-layer or global.")
    var scope: ScopeArgument = .perLayer
    @Flag(help: "Keep every eigenvector: the exact damped inverse. For small stores or small layers.")
    var exact = false
    @Option(help: "Most memory that the fit and writing coordinates may take, as in 512MiB or 4GiB.")
    var memory: ByteCount = ByteCount(4 << 30)
    @Option(help: "Most passes over the rows, where they are iterated over until the energy settles; at least 2.")
    var passes: Int = 12
    @Option(help: "gram, kernel or krylov; chosen by cost and memory unless said.")
    var algorithm: FitAlgorithm?
    @Option(help: "Start of the random directions.")
    var seed: UInt64 = 0
    @Option(help: "Threads; all processors unless said.")
    var threads: Int?
    @Option(
        help: ArgumentHelp(
            "Keep the rows' coordinates: int8, f16 or f32. For a fit that the store has already, and with --use, those that are missing.",
            valueName: "encoding"))
    var coordinates: Encoding?
    @Flag(help: "Print what the fit would do and cost, and stop.")
    var dryRun = false
    @Flag(help: "List the fitted curvatures.")
    var list = false
    @Option(help: ArgumentHelp("Make a fitted curvature the one in use; a prefix of its id will do.", valueName: "id"))
    var use: String?
    @Option(help: ArgumentHelp("Remove a fitted curvature; a prefix of its id will do.", valueName: "id"))
    var drop: String?
    @OptionGroup var progress: ProgressOptions
    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        if let rank, rank < 1 { throw ValidationError("--rank must be at least 1, not \(rank)") }
        if exact, rank != nil { throw ValidationError("--exact keeps every eigenvector; leave out --rank") }
        if passes < 2 { throw ValidationError("--passes must be at least 2, not \(passes)") }
        if let threads, !(1...1024).contains(threads) {
            throw ValidationError("--threads must be from 1 to 1024, not \(threads)")
        }
        guard [dryRun, list, use != nil, drop != nil].filter({ $0 }).count <= 1 else {
            throw ValidationError("give one of --dry-run, --list, --use and --drop")
        }
        if let coordinates {
            guard CoordinatesDescription.encodings.contains(coordinates) else {
                throw ValidationError("--coordinates must be int8, f16 or f32, not \(coordinates.name)")
            }
            guard !list, drop == nil else {
                throw ValidationError("--coordinates goes with a fit or --use, not with --list or --drop")
            }
        }
        if exact, algorithm == .krylov {
            throw ValidationError("--algorithm krylov gives truncated curvature only; leave out --exact")
        }
    }

    private var workerCount: Int { threads ?? availableProcessorCount() }

    private var options: FitOptions {
        FitOptions(
            scope: scope == .perLayer ? .perLayer : .global, rank: exact ? nil : rank ?? defaultCurvatureRank,
            exact: exact, memoryBytes: memory.value, passes: passes, seed: seed,
            workers: workerCount, algorithm: algorithm)
    }

    func run() throws {
        if list {
            try printCurvatureVersions(try Snapshot.open(at: store).curvatureVersions, store: store, json: json)
        } else if let use {
            try makeActive(use)
        } else if let drop {
            try printCurvatureChange(
                try Database(at: store).dropCurvature(startingWith: drop), verb: "removed", json: json)
        } else if dryRun {
            try printFitOutlook(
                try Database(at: store).planFit(options: options, coordinates: coordinates), memory: memory.value,
                json: json)
        } else {
            try fit()
        }
    }

    private func makeActive(_ prefix: String) throws {
        guard let coordinates else {
            return try printCurvatureChange(
                try Database(at: store).useCurvature(startingWith: prefix), verb: "in use", json: json)
        }
        let (version, report) = try withProgress(
            progress, promptExit: "stopped on request; what was finished is kept for the same command"
        ) { control in
            try Database(at: store).useCurvature(
                startingWith: prefix, coordinates: coordinates, memoryBytes: memory.value, workers: workerCount,
                control: control)
        }
        for note in report.notes { standardError("lorif: note: \(note)\n") }
        try printCurvatureChange(version, verb: "in use", coordinates: report, json: json)
    }

    private func fit() throws {
        let started = ContinuousClock.now
        let report = try withProgress(
            progress, promptExit: "stopped on request; what was finished is kept for the same command"
        ) { control in
            try Database(at: store).fit(options: options, coordinates: coordinates, control: control)
        }
        let elapsed = seconds(ContinuousClock.now - started)
        for warning in report.warnings + (report.coordinates?.notes ?? []) {
            standardError("lorif: note: \(warning)\n")
        }
        try printFitReport(report, scope: scope.rawValue, exact: exact, elapsedSeconds: elapsed, json: json)
    }
}

/// `--scope` on the command line.
enum ScopeArgument: String, ExpressibleByArgument, CaseIterable {
    case perLayer = "per-layer"
    case global
}
