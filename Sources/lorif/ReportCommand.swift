import ArgumentParser
import Engine
import Store

/// `lorif report`: the answer as a page for a browser.
struct ReportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report",
        abstract: "Write the answer to queries as one HTML file, with pictures.",
        discussion: """
            For each query its text, the examples that helped and harmed most with what every layer adds to their scores, how the scores of all \
            examples are distributed, and the sums by a field of the examples ('source' unless --group-by names another); then the \
            curvature's spectrum and what the store holds. The file needs nothing else and no network, has no scripts, is light or dark as the reader's \
            system, and prints. Lists are 5 long unless said.

              lorif report store queries.safetensors --output report.html
              lorif report store --by-id train-00417 --output neighbours.html
              lorif report store q.safetensors --layers '*.mlp.*' --output mlp.html
            """)

    @Argument(help: "The store.")
    var store: String
    @Argument(help: "Query gradients, a factor batch file; not used by self-influence.")
    var queries: String?
    @Option(help: ArgumentHelp("The file to write; replaced if it is there.", valueName: "file"))
    var output: String
    @OptionGroup var question: QuestionOptions
    @Option(help: ArgumentHelp("Ask the store as it was when it got this name.", valueName: "name"))
    var snapshot: String?
    @OptionGroup var progress: ProgressOptions

    func validate() throws {
        try question.checkQueries(queries)
        guard output != "-" else { throw ValidationError("--output -: a report is a file; give it a name") }
        guard question.curvature?.contains(",") != true else {
            throw ValidationError("--curvature: a report is of one curvature; 'lorif query' averages over several")
        }
    }

    func run() throws {
        let started = ContinuousClock.now
        let database = try OpenDatabase(at: store, snapshotNamed: snapshot)
        var request = try question.request(queries: queries, top: 5, bottom: 5)
        request.wantsDistribution = true
        request.wantsContributions = request.hasContributions
        if request.groupField == nil, try database.metadataFieldNames().contains("source") {
            request.groupField = "source"
        }
        let asked = request
        let result = try withProgress(progress, promptExit: EngineError.cancelled.description) {
            try database.answer(asked, control: $0)
        }
        for warning in result.warnings { standardError("lorif: note: \(warning)\n") }
        let page = ReportPage(
            result: result, snapshot: database.snapshot, queriesName: queries, groupField: request.groupField,
            spectra: try spectra(of: result, database),
            elapsedSeconds: seconds(ContinuousClock.now - started))
        let html = page.html
        try writeText(html, toFile: output)
        standardOutput(
            "\(grouped(result.answers.count)) \(result.answers.count == 1 ? "answer" : "answers") in \(output), "
                + "\(byteText(html.utf8.count))\n")
    }

    /// The eigenvalues of the curvature that was used.
    private func spectra(of result: QueryResult, _ database: OpenDatabase) throws -> [ReportPage.Spectrum] {
        guard let digest = result.curvature else { return [] }
        return try database.readCurvature(digest).map { group in
            ReportPage.Spectrum(
                figures: FittedGroup(group, schema: database.snapshot.schema), eigenvalues: group.eigenvalues)
        }
    }
}
