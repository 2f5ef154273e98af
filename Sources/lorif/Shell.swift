import ArgumentParser
import Engine
import Glibc
import Store

/// `lorif shell`: questions to a store that stays open.
struct Shell: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Ask a store interactively; it stays open.",
        discussion: """
            Reads commands: query FILE, id ID…, set, unset, explain, show ID, info, reload, help, quit. Options are those of \
            'lorif query', and 'set' keeps one for all that follows. In a terminal lines can be edited, the arrow keys go through the history (kept in \
            $XDG_STATE_HOME/lorif/history, ~/.local/state without it), and Tab completes commands, options, files, ids, layers and fields. Commands may also \
            be piped in; then the first error ends the session with its exit code.

              lorif shell store
              echo 'id train-00417 --top 3' | lorif shell store
            """)

    @Argument(help: "The store.")
    var store: String
    @Option(help: ArgumentHelp("Ask the store as it was when it got this name.", valueName: "name"))
    var snapshot: String?
    @OptionGroup var progress: ProgressOptions

    func run() throws {
        var session = ShellSession(
            progress: progress, database: try OpenDatabase(at: store, snapshotNamed: snapshot))
        guard Terminal.isTerminal(STDIN_FILENO) else {
            while let line = readLine() { if try !session.obey(line) { return } }
            return
        }
        let held = session.database.snapshot
        standardOutput(
            "lorif \(lorifRelease): \(grouped(held.rowCount)) examples, generation \(held.generation) of \(store). "
                + "'help' lists the commands.\n")
        let editor = LineEditor()
        defer { editor.close() }
        var history = ShellHistory()
        editor.isCancelled = { Interruption.cancellation.isCancelled }
        while true {
            editor.history = history.lines
            let asked = session
            editor.complete = { ShellCompletion(asked).complete($0) }
            switch editor.readLine(prompt: "lorif> ") {
            case .end: return
            case .interrupted: continue
            case .line(let line):
                history.add(line)
                do {
                    guard try session.obey(line) else { return }
                } catch {
                    guard let failure = CommandFailure(error) else { throw error }
                    standardError("lorif: \(failure.message)\n")
                }
                // Ctrl-C stops a question and not the session.
                if Interruption.isEnding { return }
                Interruption.rearm()
            }
        }
    }
}

/// A question within a session: what `lorif query` takes, but for the store.
struct ShellQuestion: ParsableArguments {
    @Argument var words: [String] = []
    @OptionGroup var question: QuestionOptions
    @Flag var perLayer = false
    @OptionGroup var destination: AnswerDestination

    /// Names of the options, for `set`; not what says which examples are the queries.
    static let settings = [
        "aggregate", "aggregate-by", "among", "at-least", "at-most", "bottom", "curvature", "damping", "deadline",
        "format", "group-by",
        "guarantee", "kernel", "layers", "memory", "metadata", "method", "output", "per-layer", "read",
        "relative-damping", "summary", "threads", "top", "where",
    ]
}

/// An open store and what has been set.
struct ShellSession {
    let progress: ProgressOptions
    /// What is asked; another after `reload`.
    private(set) var database: OpenDatabase
    /// Values of options by name, in the order in which they were set.
    private(set) var settings: [(name: String, values: [String])] = []
    private var lastQuestion: [String]?

    static let commands: [(name: String, usage: String, help: String)] = [
        ("query", "query FILE [OPTION…]", "rank the examples for the gradients in a file; options as of 'lorif query'"),
        ("id", "id ID… [OPTION…]", "the same for stored examples"),
        (
            "explain", "explain [analyze] [query … | id …]",
            "how a question, or the last one, is answered; with analyze also what was done"
        ),
        (
            "set", "set [NAME [VALUE…]]",
            "keep an option for all questions: method, damping, top, layers, where …; without more, list them"
        ),
        ("unset", "unset NAME", "forget it"),
        ("show", "show ID", "an example: its metadata, where it is, its norms"),
        ("info", "info [layers|curvature|segments|basis]", "what the store holds"),
        ("reload", "reload", "go on with the newest generation of the store"),
        ("help", "help", "this list"),
        ("quit", "quit", "end the session; so do exit and Ctrl-D"),
    ]

    init(progress: ProgressOptions, database: OpenDatabase) {
        self.progress = progress
        self.database = database
    }

    /// Does what a line says; false when it ends the session.
    mutating func obey(_ line: String) throws -> Bool {
        var words: [String]
        do {
            words = try shellWords(line)
        } catch {
            throw wrong("the quotation that begins with \(error.quote) does not end")
        }
        guard let command = words.first, !command.hasPrefix("#") else { return true }
        words.removeFirst()
        switch command {
        case "query", "id": try ask([command] + words)
        case "explain": try explain(words)
        case "set": try set(words)
        case "unset": try unset(words)
        case "show": try show(words)
        case "info": try info(words)
        case "reload":
            database = try OpenDatabase(at: database.snapshot.path, snapshotNamed: database.snapshot.name)
            standardOutput(
                "\(grouped(database.snapshot.rowCount)) examples, generation \(database.snapshot.generation)\n")
        case "help", "?":
            standardOutput(table(Self.commands.map { [$0.usage, $0.help] }))
        case "quit", "exit": return false
        default:
            let near = nearestName(to: command, among: Self.commands.map(\.name))
            throw wrong(
                "no command '\(command)'; " + (near.map { "did you mean '\($0)'?" } ?? "'help' lists the commands"))
        }
        return true
    }

    private func wrong(_ message: String) -> CommandFailure { CommandFailure(code: .usage, message: message) }

    // MARK: - Questions

    private mutating func ask(_ words: [String], explaining explanation: Explanation? = nil) throws {
        let (request, destination) = try request(words)
        lastQuestion = words
        if explanation == .plan { return standardOutput(planTable(try database.plan(request))) }
        let started = ContinuousClock.now
        let (database, asked) = (database, request)
        let result = try withProgress(progress) { try database.answer(asked, control: $0) }
        for warning in result.warnings { standardError("lorif: note: \(warning)\n") }
        try destination.write(result, elapsedSeconds: seconds(ContinuousClock.now - started))
        if explanation == .analyze { standardOutput(planTable(result.plan, result.meter)) }
    }

    /// What a question with the settings asks, and where its answer goes.
    private func request(_ words: [String]) throws -> (QueryRequest, AnswerDestination) {
        let given = Set(words.compactMap { $0.hasPrefix("--") ? String($0.dropFirst(2).prefix { $0 != "=" }) : nil })
        let kept = settings.filter { setting in
            !given.contains(setting.name) && !(isDamping(setting.name) && given.contains(where: isDamping))
        }
        let parsed = try parse(kept.flatMap(arguments) + words.dropFirst())
        var question = parsed.question
        let isByIdentifier = words[0] == "id"
        if isByIdentifier { question.byId += parsed.words }
        guard isByIdentifier ? !question.byId.isEmpty || !question.method.needsQueries : parsed.words.count <= 1 else {
            throw wrong(
                isByIdentifier
                    ? "id: expected ids of examples" : "query: expected one file, found \(parsed.words.count)")
        }
        guard question.curvature?.contains(",") != true else {
            throw wrong("--curvature: a session asks one curvature at a time; 'lorif query' averages over several")
        }
        do {
            var request = try question.request(
                queries: isByIdentifier ? nil : parsed.words.first, top: parsed.destination.listsAnswers ? 10 : 0,
                bottom: 0)
            request.wantsContributions = parsed.perLayer
            request.scoresPath = parsed.destination.scoresPath
            return (request, parsed.destination)
        } catch let error as ValidationError {
            throw wrong(error.message)
        }
    }

    private func parse(_ arguments: [String]) throws -> ShellQuestion {
        do {
            return try ShellQuestion.parse(joiningNegativeNumbers(arguments))
        } catch {
            throw wrong(ShellQuestion.message(for: error))
        }
    }

    private mutating func explain(_ words: [String]) throws {
        var words = words
        let isAnalysis = words.first == "analyze"
        if isAnalysis { words.removeFirst() }
        if words.isEmpty { words = lastQuestion ?? [] }
        guard let command = words.first, command == "query" || command == "id" else {
            throw wrong("explain: expected a question, as in 'explain query FILE', or one asked before")
        }
        try ask(words, explaining: isAnalysis ? .analyze : .plan)
    }

    // MARK: - Settings

    private func isDamping(_ name: String) -> Bool { name == "damping" || name == "relative-damping" }

    private func arguments(_ setting: (name: String, values: [String])) -> [String] {
        setting.name == "per-layer" ? ["--per-layer"] : setting.values.map { "--\(setting.name)=\($0)" }
    }

    private mutating func set(_ words: [String]) throws {
        guard let name = words.first else {
            if settings.isEmpty { standardOutput("nothing is set\n") }
            return standardOutput(table(settings.map { [$0.name, $0.values.map(shellQuoted).joined(separator: " ")] }))
        }
        try check(setting: name)
        var values = Array(words.dropFirst())
        if name == "per-layer", values == ["off"] { return try unset([name]) }
        if name == "per-layer", values.isEmpty { values = ["on"] }
        let takesSeveral = name == "layers" || name == "output"
        guard name != "per-layer" || values == ["on"] else { throw wrong("set per-layer: expected on or off") }
        guard !values.isEmpty, takesSeveral || values.count == 1 else {
            throw wrong("set \(name): expected \(takesSeveral ? "values" : "one value")")
        }
        let setting = (name: name, values: values)
        _ = try parse(arguments(setting))
        let replaced = isDamping(name) ? ["damping", "relative-damping"] : [name]
        settings.removeAll { replaced.contains($0.name) }
        settings.append(setting)
    }

    private mutating func unset(_ words: [String]) throws {
        guard words.count == 1 else { throw wrong("unset: expected one name") }
        try check(setting: words[0])
        settings.removeAll { $0.name == words[0] }
    }

    private func check(setting name: String) throws {
        guard !ShellQuestion.settings.contains(name) else { return }
        let near = nearestName(to: name, among: ShellQuestion.settings)
        throw wrong(
            "nothing called '\(name)' can be set; "
                + (near.map { "did you mean '\($0)'?" } ?? "there are " + ShellQuestion.settings.joined(separator: ", "))
        )
    }

    // MARK: - What there is

    private func show(_ words: [String]) throws {
        guard words.count == 1 else { throw wrong("show: expected one id, found \(words.count) words") }
        try inspect(["--example=\(words[0])"])
    }

    private func info(_ words: [String]) throws {
        let parts = ["layers", "curvature", "segments", "basis"]
        guard words.isEmpty || words.count == 1 && parts.contains(words[0]) else {
            throw wrong("info: expected nothing, or one of \(parts.joined(separator: ", "))")
        }
        try inspect(words.map { "--\($0)" })
    }

    private func inspect(_ options: [String]) throws {
        try Inspect.parse([database.snapshot.path] + options).show(database.snapshot)
    }
}
