import ArgumentParser
import Checksum
import Curvature
import Engine
import Store

/// `lorif fit`: curvature of the stored rows.
struct Fit: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Fit the curvature that influence scores need.",
        discussion: """
            Finds the eigenvalues and eigenvectors of H = Σ g gᵀ over the stored rows, per layer or over all layers together: \
            the leading R (truncated SVD), or all (--exact). The damping is chosen later, at query time.

              lorif fit store --rank 256
            """)

    @Argument(help: "The store.")
    var store: String
    @Option(help: "Eigenvectors to keep per layer (or in all, with global scope).")
    var rank: Int = defaultCurvatureRank
    @Option(help: "per-layer or global.")
    var scope: ScopeArgument = .perLayer
    @Flag(help: "Keep every eigenvector: the exact damped inverse. For small stores or small layers.")
    var exact = false
    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        guard rank >= 1 else { throw ValidationError("--rank must be at least 1, not \(rank)") }
    }

    func run() throws {
        let started = ContinuousClock.now
        let report = try withProgress { control in
            try fitCurvature(
                of: store,
                options: FitOptions(
                    scope: scope == .perLayer ? .perLayer : .global, rank: exact ? nil : rank, exact: exact,
                    workers: availableProcessorCount()), control: control)
        }
        let elapsed = seconds(ContinuousClock.now - started)
        if json {
            try printJSON(
                Report(
                    curvature: report.record.digest.description, scope: scope.rawValue, exact: exact,
                    rows: report.rowCount, bytes: report.record.identity.fileLength, seconds: elapsed,
                    groups: report.groups.map {
                        Report.Group(
                            layers: $0.layerNames, gradientLength: $0.gradientLength, rank: $0.rank,
                            algorithm: $0.algorithm.rawValue, trace: $0.trace, capturedEnergy: $0.capturedEnergy,
                            largestEigenvalue: $0.largestEigenvalue, smallestEigenvalue: $0.smallestEigenvalue,
                            passes: $0.passCount)
                    }))
            return
        }
        var rows = [["layer", "D", "rank", "energy", "largest s²", "smallest s²", "algorithm"]]
        for group in report.groups {
            rows.append([
                group.layerNames.count == 1 ? group.layerNames[0] : "all \(group.layerNames.count) layers",
                grouped(group.gradientLength), grouped(group.rank), percentText(group.capturedEnergy),
                magnitudeText(group.largestEigenvalue), magnitudeText(group.smallestEigenvalue),
                group.algorithm.rawValue,
            ])
        }
        standardOutput(table(rows, right: [1, 2, 3, 4, 5]))
        standardOutput(
            "curvature \(report.record.digest.description.prefix(12)) (\(scope.rawValue)) fitted on "
                + "\(grouped(report.rowCount)) rows in \(durationText(elapsed)); \(byteText(report.record.identity.fileLength))\n"
        )
    }

    private struct Report: Encodable {
        struct Group: Encodable {
            let layers: [String]
            let gradientLength, rank: Int
            let algorithm: String
            let trace, capturedEnergy, largestEigenvalue, smallestEigenvalue: Double
            let passes: Int
        }
        let curvature, scope: String
        let exact: Bool
        let rows, bytes: Int
        let seconds: Double
        let groups: [Group]
    }
}

/// `--scope` on the command line.
enum ScopeArgument: String, ExpressibleByArgument, CaseIterable {
    case perLayer = "per-layer"
    case global
}
