import ArgumentParser
import Engine

/// The command line: parses arguments, calls the engine, prints answers, maps failures to exit codes.
struct Lorif: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lorif",
        abstract: "A database for gradient factors: which training examples made the model say this?",
        discussion: """
            A first answer, from files of factors to a ranked list:

              lorif ingest store train.safetensors
              lorif fit    store
              lorif query  store queries.safetensors --top 5 --bottom 5

            Exit codes: 0 done; 1 the answer is no (verify found damage); 2 wrong usage; 3 input refused; \
            4 the store is damaged; 5 the environment failed (disk, permission, memory, a second writer); 130 interrupted.
            """,
        version: lorifRelease,
        subcommands: [
            Create.self, Ingest.self, Fit.self, Query.self, ReportCommand.self, Shell.self, Inspect.self, Doctor.self,
            Verify.self, Delete.self, Export.self, Pack.self, Attach.self, Import.self, CollectionCommand.self,
            Compact.self,
            SnapshotCommand.self, Copy.self, Repair.self,
            Compare.self, Estimate.self, Calibrate.self,
        ])

    /// The commands by name, and the parser's own.
    static let commandNames =
        configuration.subcommands.map { $0.configuration.commandName ?? "\($0)".lowercased() } + ["help"]
}

@main
enum Program {
    static func main() {
        prepareProcess()
        Interruption.install()
        do {
            var command = try Lorif.parseAsRoot(joiningNegativeNumbers(Array(CommandLine.arguments.dropFirst())))
            try command.run()
        } catch {
            exit(reporting: error)
        }
    }

    /// Prints the error the way its kind deserves and ends the process with the documented exit code.
    private static func exit(reporting error: any Error) -> Never {
        if let failure = CommandFailure(error) {
            standardError("lorif: \(failure.message)\n")
            leave(failure.code)
        }
        // Help, version and usage errors of the argument parser; everything else was classified above.
        let message = Lorif.fullMessage(for: error)
        let text = message.hasPrefix("Error: ") ? "lorif: " + message.dropFirst(7) : message
        let code: ExitStatus = Lorif.exitCode(for: error) == .success ? .success : .usage
        if code == .usage, let unknown = CommandLine.arguments.dropFirst().first, !unknown.hasPrefix("-") {
            let commands = Lorif.commandNames
            if !commands.contains(unknown) {
                let near = nearestName(to: unknown, among: commands).map { "did you mean '\($0)'?" }
                standardError("lorif: no command '\(unknown)'; \(near ?? "'lorif --help' lists them")\n")
                leave(code)
            }
        }
        if code == .success { standardOutput(text + "\n") } else { standardError(text + "\n") }
        leave(code)
    }
}
